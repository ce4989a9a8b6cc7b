//! The X.509 extensions by which a CA certificate names logs: the log of what it issues (an
//! intermediate that of its leaves, a root that of its intermediates), and, below a root that names
//! none because somebody else made it, the log that it is in itself. Written by the CA's signer, read
//! by `judge`, by whoever meets a CA for the first time, and by monitors.
//!
//! The object identifiers lie in the arc that Microsoft set apart for identifiers made from a random
//! GUID (ours are 66085cf6-00be-43e1-a092-7704c6ecb4ae and 9e4731b9-1a18-4551-9bf0-3c6c9efa24fe); a
//! registered one would read no different.
//!
//! Never: critical; who does not know it must still be able to verify the chain.

// SPDX-License-Identifier: Apache-2.0

use x509_parser::certificate::X509Certificate;

use super::note::{KeyError, LogKey};
use crate::x509::{Malformed, parse};

/// The object identifier of the log of what this CA issues.
pub const LOG_OID: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8000, 2554, 26120, 23798, 190, 17377, 41106, 7_800_006, 15_512_750];

/// That of the log that this CA's own certificate is in. A statement of its issuer's, and yet not
/// believed alone: it is the trust bundle that says which log counts below a root.
pub const ISSUER_LOG_OID: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8000, 2554, 40519, 12729, 6680, 17745, 39920, 3_959_966, 16_393_470];

const SEQUENCE: u8 = 0x30;
const UTF8_STRING: u8 = 0x0c;
const OCTET_STRING: u8 = 0x04;
const KEY_BYTES: u8 = 32;

/// Why a certificate's naming of a log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedLogError {
    #[error(transparent)]
    Certificate(#[from] Malformed),
    #[error(
        "the certificate names a log, but not as a name and an Ed25519 key, once, uncritically"
    )]
    Malformed,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The extension's value: SEQUENCE { UTF8String origin, OCTET STRING Ed25519 key }, DER.
pub fn named_log_extension(log: &LogKey) -> Vec<u8> {
    let mut inside = tagged(UTF8_STRING, log.name().as_bytes());
    inside.extend(tagged(OCTET_STRING, log.as_note_key().public()));
    tagged(SEQUENCE, &inside)
}

/// The log that a CA certificate names, if it names one.
pub fn named_log(certificate_der: &[u8]) -> Result<Option<LogKey>, NamedLogError> {
    named_by(&parse(certificate_der)?, LOG_OID)
}

/// The log that an intermediate says it is in itself, if it says so.
pub fn issuer_log(certificate_der: &[u8]) -> Result<Option<LogKey>, NamedLogError> {
    named_by(&parse(certificate_der)?, ISSUER_LOG_OID)
}

fn named_by(
    certificate: &X509Certificate<'_>,
    oid: [u64; 14],
) -> Result<Option<LogKey>, NamedLogError> {
    let mut found = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid.iter().is_some_and(|arcs| arcs.eq(oid)));
    let Some(extension) = found.next() else {
        return Ok(None);
    };
    if extension.critical || found.next().is_some() {
        return Err(NamedLogError::Malformed);
    }
    named_log_of_value(extension.value).map(Some)
}

/// The log that an extension's value names, where it stands without a certificate: in a request.
pub fn named_log_of_value(value: &[u8]) -> Result<LogKey, NamedLogError> {
    let (name, public) = take_apart(value).ok_or(NamedLogError::Malformed)?;
    let log = LogKey::new(name, public)?;
    // DER has one spelling.
    if named_log_extension(&log) == value { Ok(log) } else { Err(NamedLogError::Malformed) }
}

fn take_apart(value: &[u8]) -> Option<(&str, [u8; KEY_BYTES as usize])> {
    let (name, key) = value.split_at_checked(value.len().checked_sub(2 + KEY_BYTES as usize)?)?;
    let key = key.strip_prefix(&[OCTET_STRING, KEY_BYTES])?.try_into().ok()?;
    let name = without_head(without_head(name, SEQUENCE)?, UTF8_STRING)?;
    Some((std::str::from_utf8(name).ok()?, key))
}

/// What follows a tag and a length; that the length is right shows when it is written again.
fn without_head(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    match bytes.strip_prefix(&[tag])? {
        [0x82, _, _, rest @ ..] | [0x81, _, rest @ ..] => Some(rest),
        [0..=0x7f, rest @ ..] => Some(rest),
        _ => None,
    }
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("an origin and a key stay below 64 KiB");
    let mut out = vec![tag];
    match length.to_be_bytes() {
        [0, low @ 0..=0x7f] => out.push(low),
        [0, low] => out.extend([0x81, low]),
        [high, low] => out.extend([0x82, high, low]),
    }
    out.extend(content);
    out
}
