//! The hot path: bytes between a workload's stream and a mesh connection, both ways at once, with
//! half-close kept, backpressure passed on, and every frame judged by the wire machines. Called by
//! `inbound` and `outbound`; `tls` drives its handshakes over `Records`.
//!
//! Never: a buffer of its own for a connection (rustls holds the plaintext, the thread lends the
//! rest), a clean end for a stream that was cut, a decision about who may talk.

// SPDX-License-Identifier: Apache-2.0

mod bare;
mod carrier;
mod duplex;
mod link;
mod plain;
mod records;
mod scratch;

pub use bare::Bare;
pub use carrier::{Carrier, LinkError, Step};
pub use duplex::{Ending, Limits, MOST_SAID, Meter, Said, run};
pub use link::Link;
pub use plain::{PlainEnding, plain};
pub use records::{Arrived, MOST_PENDING, RecordError, Records};

#[cfg(test)]
mod tests;
