//! The public half of a host key: Ed25519, for it never speaks TLS and nobody but the CA reads it, and
//! an issue spends two thirds of the time on it that P-256 would take (benches/NOTES.md).
//! Called by the CA (which knows a host by it) and by the sidecar.
//! Never: another algorithm, a private key that is kept.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::svid::KeyError;
use crate::x509::{hex, sha256};

/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410, section 4): 12 fixed bytes, then 32.
pub const HOST_SPKI_BYTES: usize = 44;

/// An Ed25519 signature (RFC 8032, section 5.1.6).
pub const HOST_SIGNATURE_BYTES: usize = 64;

/// id-Ed25519 without parameters, BIT STRING of 33 bytes.
const HOST_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// How the CA knows a host. That the bytes are a point of the curve is found out at the first
/// signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostSpki([u8; HOST_SPKI_BYTES]);

impl HostSpki {
    /// The public half of this key.
    pub fn of(host_key: &Ed25519KeyPair) -> Self {
        let mut spki = [0; HOST_SPKI_BYTES];
        let (prefix, key) = spki.split_at_mut(HOST_SPKI_PREFIX.len());
        prefix.copy_from_slice(&HOST_SPKI_PREFIX);
        key.copy_from_slice(host_key.public_key().as_ref());
        Self(spki)
    }

    pub fn as_bytes(&self) -> &[u8; HOST_SPKI_BYTES] {
        &self.0
    }

    /// SHA-256 of the encoding: the name of the host in stores and logs.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0[HOST_SPKI_PREFIX.len()..])
            .verify(message, signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl TryFrom<&[u8]> for HostSpki {
    type Error = KeyError;

    fn try_from(der: &[u8]) -> Result<Self, KeyError> {
        let spki: [u8; HOST_SPKI_BYTES] = der.try_into().map_err(|_| KeyError::NotEd25519)?;
        if !spki.starts_with(&HOST_SPKI_PREFIX) {
            return Err(KeyError::NotEd25519);
        }
        Ok(Self(spki))
    }
}

impl fmt::Debug for HostSpki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostSpki(sha256 ")?;
        hex(f, &self.fingerprint())?;
        f.write_str(")")
    }
}
