//! What rests in the store about foreign trust domains: one record for each that we federate with,
//! and the roll that names them all. `federation` reads and writes them.
//!
//! Never: belief; a record is only as good as the roll that names it, and the roll as its seal.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Blob, Hex, Record};
use crate::clock::UnixSeconds;

/// A trust domain that we federate with. `name`: the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederationRecord {
    pub profile: EndpointProfile,
    pub url: String,
    /// Whom the endpoint must be, under `https_spiffe`.
    pub endpoint_id: Option<String>,
    /// Where to connect in place of what the URL's host resolves to.
    pub address: Option<SocketAddr>,
    /// Roots for `https_web` in place of the system's.
    pub web_roots_pem: Option<String>,
    /// The operator accepts peers of this domain without a log's proof.
    pub unlogged: bool,
    pub added: UnixSeconds,
    /// The last good bundle.
    pub bundle: Option<ForeignRecord>,
    /// Set while the newest attempts fail.
    pub failure: Option<FailureRecord>,
}

/// How the endpoint authenticates itself (SPIFFE Federation, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointProfile {
    HttpsSpiffe,
    HttpsWeb,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignRecord {
    pub sequence: u64,
    pub roots_der: Vec<Blob>,
    /// Seconds, as the other side said.
    pub refresh_hint: Option<u64>,
    /// When the endpoint last said so; 0 for what the operator brought.
    pub fetched: UnixSeconds,
    /// When it last said something new.
    pub changed: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    pub at: UnixSeconds,
    /// How many attempts in a row.
    pub attempts: u32,
    pub word: String,
    pub why: String,
}

/// Which of the records count, and in which words. `name`: `current`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollRecord {
    /// Grows with each change of what sidecars are told.
    pub epoch: u64,
    /// For each domain, the SHA-256 of what counts of its record.
    pub members: BTreeMap<String, Hex>,
    /// Over all of the above, by a key that is not in the store.
    pub seal: Option<Blob>,
}

impl Record for FederationRecord {
    const PREFIX: &'static str = "federation/";
}

impl Record for RollRecord {
    const PREFIX: &'static str = "federation-epoch/";
    /// 1 was an epoch without a seal.
    const VERSION: u32 = 2;
}

impl EndpointProfile {
    /// The word of the SPIFFE specification.
    pub fn word(self) -> &'static str {
        match self {
            Self::HttpsSpiffe => "https_spiffe",
            Self::HttpsWeb => "https_web",
        }
    }
}
