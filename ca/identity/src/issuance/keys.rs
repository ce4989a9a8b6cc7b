//! The fixed-length values of the protocol: request keys, lineage IDs, the secret of a join token.
//! Called by `issuance`'s messages, by the CA's store and by the sidecar's renewal.
//! Never: the secret in a log, or compared in a time that depends on it.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;

use super::IssuanceError;
use crate::x509::{hex, sha256};

/// Names one intention to get a certificate: the same again when its answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey([u8; 16]);

/// Names one line of SVIDs, from an attestation through its renewals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineageId([u8; 16]);

/// The one-time secret of a join token. Compared in constant time, never shown.
#[derive(Clone)]
pub struct TokenSecret([u8; 32]);

impl RequestKey {
    pub const BYTES: usize = 16;

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn random() -> Result<Self, IssuanceError> {
        random_bytes().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl LineageId {
    pub const BYTES: usize = 16;

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn random() -> Result<Self, IssuanceError> {
        random_bytes().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TokenSecret {
    pub const BYTES: usize = 32;

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn random() -> Result<Self, IssuanceError> {
        random_bytes().map(Self)
    }

    /// For the wire and for the token's text only.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the CA stores and looks up instead of the secret. 256 random bits need no slow hash.
    pub fn stored_hash(&self) -> [u8; 32] {
        let mut bytes = b"myelin join token v1\0".to_vec();
        bytes.extend(self.0);
        sha256(&bytes)
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

impl fmt::Display for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

fn random_bytes<const N: usize>() -> Result<[u8; N], IssuanceError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| IssuanceError::NoRandomness)?;
    Ok(bytes)
}
