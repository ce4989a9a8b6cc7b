//! The few facts of X.509 that every room above reads the same way: bounded strict parsing, serial
//! numbers, root fingerprints, P-256 keys, and one issuer's signature on one certificate.
//! Called by `bundle`, `svid`, `verify` and `issuance`.
//! Never: path building (webpki does it, in `verify`), private keys, RSA.

// SPDX-License-Identifier: Apache-2.0

mod ca;
mod fingerprint;
mod key;
mod serial;

pub(crate) use ca::CaFacts;
pub use ca::CaFault;
pub use fingerprint::{HexError, RootId};
pub(crate) use fingerprint::{hex, sha256, unhex32};
pub use key::{KeyError, P256_SIGNATURE_MAX_BYTES, P256_SPKI_BYTES, P256Spki};
pub use serial::{Serial, SerialError};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// A P-256 certificate with a 2048-byte SPIFFE ID and 64 IPv6 SANs stays below 4 KiB; twice that
/// leaves room for certificates of other issuers, and four of them fit two TLS records.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// Seconds since the Unix epoch, both ends included (RFC 5280, section 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

/// The bytes are not one bounded, well-formed X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a certificate has {bytes} bytes, more than {MAX_CERTIFICATE_BYTES}")]
    TooBig { bytes: usize },
    #[error("a certificate is not well-formed DER")]
    NotDer,
    #[error("bytes follow the end of a certificate")]
    TrailingBytes,
    #[error("a certificate's validity lies outside 1970 to 9999 or ends before it begins")]
    Validity,
    #[error("a certificate's {0} extension is malformed or there twice")]
    Extension(&'static str),
    #[error("a certificate's serial number is not 1 to 20 bytes of a positive number")]
    Serial,
}

/// Parses exactly one certificate.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Malformed> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(Malformed::TooBig { bytes: der.len() });
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Malformed::TrailingBytes),
        Err(_) => Err(Malformed::NotDer),
    }
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, Malformed> {
    let seen = certificate.validity();
    match (u64::try_from(seen.not_before.timestamp()), u64::try_from(seen.not_after.timestamp())) {
        (Ok(not_before), Ok(not_after)) if not_before <= not_after => {
            Ok(Validity { not_before, not_after })
        }
        _ => Err(Malformed::Validity),
    }
}
