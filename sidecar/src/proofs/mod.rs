//! Is this peer's certificate in the log that its issuer has to keep? Peers show the proof in their
//! hello; it is verified once for each SVID and remembered. What decides whether a proof is needed
//! is the root of the peer's path: a root that names a log makes it a duty of everything below it.
//! Nothing that a peer says takes it back, and no bundle that adds a root without a log is taken
//! over where one that names a log was held, whoever signed for it. Called by `inbound` and `outbound` for
//! each new connection, and by `credentials` for our own SVID.
//!
//! Never: asks anybody, waits, reads a clock; accepts for want of a log where the root names one;
//! is asked between two uses of one connection.

// SPDX-License-Identifier: Apache-2.0

mod duty;
mod forks;
mod judge;
mod refusal;
#[cfg(test)]
mod tests;

pub use duty::{Duty, accepted_roots, takes_duty_back};
pub use forks::{Fork, Suspect};
pub use judge::{Judge, Path, Standing};
pub use refusal::NotLogged;

pub use myelin_identity::log::{LogKey, Seen, WitnessKey, Witnesses};
