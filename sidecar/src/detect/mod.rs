//! What a connection is, judged from its first bytes: a pure function of a bounded prefix, and
//! the rules for who may be spoken to in plaintext. Called by inbound (and outbound, for ports
//! where the workload speaks TLS itself) after each read, under its own deadline.
//!
//! Never: I/O, a clock, a decision made on a ClientHello that is not there whole, the SNI.

// SPDX-License-Identifier: Apache-2.0

mod client_hello;
mod permissive;
mod reader;
mod records;

pub use client_hello::{Hello, MAX_PROTOCOLS};
pub use permissive::{PortListing, Source, Verdict, on_first_bytes, on_silence};
pub use records::PREFIX_LIMIT;

use records::Gathered;

/// What the bytes so far say. The words of `Malformed` are stable: they go to log and metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    /// Undecided: call again when the prefix has at least `need` bytes. A caller that waits for
    /// that many parses a hello of any fragmentation a few dozen times at most.
    NeedMore { need: usize },
    /// A whole ClientHello.
    Tls(Hello),
    /// Something else than TLS, whatever it is.
    NotTls,
    /// It began like TLS and is no ClientHello.
    Malformed(&'static str),
}

/// Whether a first byte can begin a TLS connection: the record type `handshake`.
pub const fn first_byte_is_tls(byte: u8) -> bool {
    byte == records::HANDSHAKE
}

/// Judges the first bytes of a connection. The hello may be spread over any number of records
/// and reads. Looks at no more than [`PREFIX_LIMIT`] bytes.
pub fn client_hello(prefix: &[u8]) -> Detected {
    match records::gather(prefix) {
        Gathered::NeedMore { need } => Detected::NeedMore { need },
        Gathered::NotTls => Detected::NotTls,
        Gathered::Malformed(word) => Detected::Malformed(word),
        Gathered::Hello(body) => match client_hello::parse(&body) {
            Ok(hello) => Detected::Tls(hello),
            Err(word) => Detected::Malformed(word),
        },
    }
}

#[cfg(test)]
mod tests;
