//! A P-256 public key in the one encoding that Myelin takes, and signatures by it.
//! Called by `svid`, `bundle` and `issuance`.
//! Never: private keys, other curves, compressed points.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::{hex, sha256};

/// SubjectPublicKeyInfo of an uncompressed P-256 point (RFC 5480): 26 fixed bytes, then 65.
pub const P256_SPKI_BYTES: usize = 91;

/// An ASN.1 ECDSA P-256 signature: two INTEGERs of at most 33 bytes, each with 2 bytes of header,
/// and 2 for the SEQUENCE.
pub const P256_SIGNATURE_MAX_BYTES: usize = 72;

/// id-ecPublicKey, prime256v1, BIT STRING of 66 bytes, uncompressed point.
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// A P-256 SubjectPublicKeyInfo. That the point is on the curve is found out at the first
/// signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct P256Spki([u8; P256_SPKI_BYTES]);

/// What is wrong with a key or with a signature by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the public key is no uncompressed ECDSA P-256 key; make one of that kind")]
    NotP256,
    #[error("the host's public key is no Ed25519 key; make one of that kind")]
    NotEd25519,
    #[error("the signature does not belong to this key and these bytes")]
    BadSignature,
}

impl P256Spki {
    pub fn as_bytes(&self) -> &[u8; P256_SPKI_BYTES] {
        &self.0
    }

    /// SHA-256 of the encoding: the name of the key in stores and logs.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    /// Checks an ASN.1 ECDSA signature with SHA-256.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        if signature.len() > P256_SIGNATURE_MAX_BYTES {
            return Err(KeyError::BadSignature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0[P256_SPKI_PREFIX.len() - 1..])
            .verify(message, signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl TryFrom<&[u8]> for P256Spki {
    type Error = KeyError;

    fn try_from(der: &[u8]) -> Result<Self, KeyError> {
        let spki: [u8; P256_SPKI_BYTES] = der.try_into().map_err(|_| KeyError::NotP256)?;
        if !spki.starts_with(&P256_SPKI_PREFIX) {
            return Err(KeyError::NotP256);
        }
        Ok(Self(spki))
    }
}

impl fmt::Debug for P256Spki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Spki(sha256 ")?;
        hex(f, &self.fingerprint())?;
        f.write_str(")")
    }
}
