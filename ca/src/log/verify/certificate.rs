//! What is in an entry that the journal does not know: enough to ask for it, and to name it to
//! whoever looks into it.
//!
//! Never: a judgement on the certificate.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::clock::{UnixSeconds, rfc3339};
use crate::journal::Hex;
use crate::template::BACKDATE_SECONDS;

/// From the log to the journal an issue takes less than the deadline of its request, 10 s; the rest
/// is for clocks that differ.
const UNDER_WAY_SECONDS: u64 = 30;

pub(super) struct Named {
    pub(super) index: u64,
    pub(super) serial: String,
    pub(super) sha256: Hex,
    spiffe_id: String,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
}

impl Named {
    /// `None`: no certificate that this CA makes. Nobody has it from here.
    pub(super) fn of(index: u64, certificate: &[u8], sha256: Hex) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let names = parsed.subject_alternative_name().ok().flatten();
        let mut names = names.iter().flat_map(|names| &names.value.general_names);
        let spiffe_id = names.find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let bytes = parsed.raw_serial();
        // DER puts a zero before a high bit.
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
        Some(Self {
            index,
            serial: Hex(bytes[first..].to_vec()).to_string(),
            sha256,
            spiffe_id: spiffe_id.unwrap_or_else(|| "without a name".to_owned()),
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
        })
    }

    pub(super) fn lasts_at(&self, now: UnixSeconds) -> bool {
        self.not_after > now
    }

    /// Whether the journal may hear of it yet.
    pub(super) fn is_young_at(&self, now: UnixSeconds) -> bool {
        now < self.not_before + BACKDATE_SECONDS + UNDER_WAY_SECONDS
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, serial, spiffe_id, not_after, .. } = self;
        write!(f, "entry {index}, certificate {serial}, {spiffe_id}, until {}", rfc3339(*not_after))
    }
}
