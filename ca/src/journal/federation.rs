//! What rests in the store about foreign trust domains: one record for each that we federate with,
//! and the epoch of them all. `federation` reads and writes them.
//!
//! Never: behaviour; whether a bundle may be taken is `federation`'s to say.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Blob, Record};
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

/// Grows with each change of what sidecars are told. `name`: `current`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederationEpochRecord {
    pub epoch: u64,
}

impl Record for FederationRecord {
    const PREFIX: &'static str = "federation/";
}

impl Record for FederationEpochRecord {
    const PREFIX: &'static str = "federation-epoch/";
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
