//! What the benches of the hot path stand on: credentials, a handshake in memory, mesh connections
//! and relays over loopback, each step a function of the product. Called by the criterion bench
//! `hot_path`, by the instruction counts of `instructions`, and `budget` compares those with the
//! ones that are kept.
//!
//! Never: a copy of product code in place of the product's own, a core but the caller's.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod budget;
pub mod compare;
pub mod credentials;
pub mod directory;
pub mod handshake;
pub mod issuance;
pub mod mesh;
pub(crate) mod pace;
pub(crate) mod process;
pub mod proofs;
pub(crate) mod show;
pub mod traffic;

/// Benches run on the allocator that the sidecar runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many times an instruction count repeats its subject. What differs from one time to the next
/// (nonces, lengths of signatures, a wake-up more or less) evens out, and valgrind takes seconds.
pub const ROUNDS: usize = 16;
