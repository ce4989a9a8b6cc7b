//! The record of a companion: the certificate that a workload holds itself, beside its sidecar's.
//! Written and read by `authority::companion`.
//!
//! Never: a private key, or a claim on an address.

// SPDX-License-Identifier: Apache-2.0

use serde::{Deserialize, Serialize};

use super::{Blob, Hex, LogPlace, Record};
use crate::clock::UnixSeconds;

/// The newest companion of a host. `name`: the hash of the host's public key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompanionRecord {
    /// Its own line, which nothing can renew: no lineage has this id.
    pub lineage: Hex,
    pub generation: u64,
    /// Where the SVID stood that vouched for it. Each generation vouches once.
    pub vouched_lineage: Hex,
    pub vouched_generation: u64,
    pub serial: Hex,
    pub not_after: UnixSeconds,
    pub request_key: Hex,
    pub csr_key: Hex,
    pub leaf_der: Blob,
    /// See [`super::LineageRecord::issuer`].
    pub issuer: Hex,
    /// Its place in an issuing log.
    #[serde(default)]
    pub logged: Option<LogPlace>,
}

impl Record for CompanionRecord {
    const PREFIX: &'static str = "companion/";
    /// The first held the issuer's certificate itself.
    const VERSION: u32 = 2;
}
