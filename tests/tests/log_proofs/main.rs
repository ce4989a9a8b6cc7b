//! Peers insist on the log: T59, forks, and what the owner of an ID gets to see. The CA of this suite is
//! one in the test's own hands, so that it can do what a robbed or lying CA would: sign in secret, log
//! nothing, log one thing and show another. The sidecars and the monitor are the real ones.
//!
//! Never: a refusal without its accepted twin.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod book;
mod ca;
mod foreign;
mod forks;
mod monitor;
mod peers;
mod plain;
mod roots;
mod stage;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../ca/tests/harness/witness.rs"]
mod witness;
mod witnesses;
