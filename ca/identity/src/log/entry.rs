//! What a certificate's entry in a log is: bytes that anybody can make again from the certificates
//! that a peer presents. Called by the CA (writes entries), by `judge` and by monitors (read them).
//! Never: anything that the presented chain does not say.

// SPDX-License-Identifier: Apache-2.0

use crate::x509::{MAX_CERTIFICATE_BYTES, sha256};

/// The first byte of every entry, so that a later form can be told from this one.
pub const ENTRY_VERSION: u8 = 1;
/// SHA-256 of the issuer's certificate.
const ISSUER_BYTES: usize = 32;

/// An entry, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// SHA-256 of the certificate above, DER.
    pub issuer: [u8; ISSUER_BYTES],
    /// The certificate, DER, with its signature.
    pub certificate: &'a [u8],
}

/// The bytes are no entry of a form that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the entry has form {found}, this binary reads {ENTRY_VERSION}")]
    Version { found: u8 },
    #[error("the entry is shorter than its head, or its certificate longer than is allowed")]
    Malformed,
}

/// Version, SHA-256 of the issuer's DER, the certificate's DER.
pub fn entry_of(certificate_der: &[u8], issuer_der: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + ISSUER_BYTES + certificate_der.len());
    out.push(ENTRY_VERSION);
    out.extend(sha256(issuer_der));
    out.extend(certificate_der);
    out
}

impl<'a> Entry<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let (&version, rest) = bytes.split_first().ok_or(EntryError::Malformed)?;
        if version != ENTRY_VERSION {
            return Err(EntryError::Version { found: version });
        }
        let (issuer, certificate) =
            rest.split_first_chunk::<ISSUER_BYTES>().ok_or(EntryError::Malformed)?;
        if certificate.is_empty() || certificate.len() > MAX_CERTIFICATE_BYTES {
            return Err(EntryError::Malformed);
        }
        Ok(Self { issuer: *issuer, certificate })
    }
}
