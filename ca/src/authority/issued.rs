//! The certificate that an issue ends with, and what its holder and the journal are told about it.
//! Made by `authority::issue` and `authority::seen`; `api` hands it out.
//!
//! Never: holds a private key, or decides anything.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use crate::clock::UnixSeconds;
use crate::journal::{Hex, LogPlace};

/// A certificate that is in the journal, ready to leave.
#[derive(Clone, Debug)]
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub lineage: Hex,
    pub generation: u64,
    pub spiffe_id: String,
    pub addresses: Vec<IpAddr>,
    pub serial: Hex,
    pub not_after: UnixSeconds,
    /// The reply to this very request was lost before.
    pub again: bool,
    /// Its place in an issuing log.
    pub logged: Option<LogPlace>,
    /// That it is logged, and its issuer too: bytes of a `LogProof`.
    pub log_proof: Vec<u8>,
}

/// A certificate of before, as the journal has it: `issued.chain` lacks the issuer, which is in the
/// root's log under this hash, and the proof is not made yet.
pub(super) struct Kept {
    pub(super) issued: Issued,
    pub(super) issuer: Hex,
}

impl Issued {
    /// What the journal names its issuer by.
    pub(super) fn issuer(&self) -> Hex {
        Hex(digest(&SHA256, &self.chain[1]).as_ref().to_vec())
    }
}
