//! Who may become which ID, in the form in which it rests in the store.
//!
//! Never: behaviour; `authority::registration` decides.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Hex, Record};
use crate::clock::UnixSeconds;

/// One registration entry. `name`: the operator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// All of them must hold of the caller.
    pub selectors: Vec<String>,
    /// Absent: whoever it selects gets nothing, whatever other entries say.
    pub grants: Option<Granted>,
    pub created: UnixSeconds,
}

/// What an entry gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub spiffe_id: String,
    pub addresses: AddressSource,
    /// Empty: every port.
    pub ports: Vec<u16>,
    /// Empty: `myelin/1`.
    pub protocol: String,
}

/// Where the addresses in the certificate come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressSource {
    Listed(Vec<IpAddr>),
    /// The address that the request came from, if it lies within one of these ranges (none: any).
    Caller {
        within: Vec<String>,
    },
    /// The IP addresses that the evidence itself names.
    Evidence,
}

/// Counts the changes of entries. `name`: [`super::CURRENT`]. An issue that rests on entries expects
/// it unchanged, so that no deny entry is passed by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RegistryRecord {
    pub version: u64,
}

/// The one host key that may stand for a pod or a machine. `name`: the hash of issuer and pod uid,
/// or of the machine's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoundRecord {
    pub host: Hex,
    /// End of the last certificate that was issued so.
    pub not_after: UnixSeconds,
}

impl Record for EntryRecord {
    const PREFIX: &'static str = "entry/";
}
impl Record for RegistryRecord {
    const PREFIX: &'static str = "registry/";
}
impl Record for BoundRecord {
    const PREFIX: &'static str = "bound/";
}
