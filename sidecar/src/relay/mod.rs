//! The hot path: bytes between a workload's stream and a mesh connection, both ways at once, with
//! half-close kept, backpressure passed on, and every frame judged by the wire machines. Called by
//! `inbound` and `outbound`; `tls` makes the `Records` when a handshake is over.
//!
//! Never: a buffer kept by a connection that sleeps (the thread lends them), a clean end for a
//! stream that was cut, a decision about who may talk.

// SPDX-License-Identifier: Apache-2.0

mod after;
mod bare;
mod bell;
mod carrier;
mod duplex;
mod ending;
mod inbox;
mod link;
mod outbox;
mod plain;
mod records;
mod seal;
mod shelf;
mod socket;

pub use bare::Bare;
pub use carrier::{Carrier, Framing, LINGER, LinkError, MOST_SAID, Said, Step};
pub use duplex::run;
pub use ending::{Ending, Limits, Meter};
pub use link::Link;
pub use plain::{PlainEnding, plain};
pub use records::{Arrived, RecordError, Records};

#[cfg(test)]
mod tests;
