//! Who may be spoken to in plaintext on a port in permissive mode, as two small tables: when the
//! client has said its first bytes, and while it is silent. Called by inbound; strict mode never
//! comes here.
//!
//! Never: plaintext to a source that the directory knows as meshed, whatever it says and however
//! long it says nothing.

// SPDX-License-Identifier: Apache-2.0

use super::Detected;

/// What the directory says about the source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It has a live SVID: it must speak TLS.
    Meshed,
    /// The directory does not know it.
    Unknown,
}

/// How the port is listed in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortListing {
    /// The workload greets first (SMTP, MySQL): silence is released at once.
    ServerFirst,
    /// Everything else.
    Unlisted,
}

/// What inbound does next on a permissive port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Hold what the workload says and read on, under the detection deadline.
    Hold,
    /// Begin the TLS handshake with the bytes at hand.
    Handshake,
    /// Pass plaintext, count it and log it as such.
    Plaintext,
    /// Close; the word is the reason.
    Refuse(&'static str),
}

/// The client has said nothing yet.
pub const fn on_silence(port: PortListing, source: Source) -> Verdict {
    match (port, source) {
        (PortListing::ServerFirst, Source::Unknown) => Verdict::Plaintext,
        (PortListing::Unlisted, _) | (_, Source::Meshed) => Verdict::Hold,
    }
}

/// The client has spoken.
pub fn on_first_bytes(detected: &Detected, source: Source) -> Verdict {
    match (detected, source) {
        (Detected::NeedMore { .. }, _) => Verdict::Hold,
        (Detected::Tls(hello), _) if hello.has_tls13 => Verdict::Handshake,
        (Detected::Tls(_), _) => Verdict::Refuse("protocol_version"),
        (Detected::Malformed(word), _) => Verdict::Refuse(word),
        (Detected::NotTls, Source::Meshed) => Verdict::Refuse("plaintext_from_meshed_source"),
        (Detected::NotTls, Source::Unknown) => Verdict::Plaintext,
    }
}
