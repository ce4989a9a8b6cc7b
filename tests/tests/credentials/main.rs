//! The sidecar's `credentials` against a real CA on loopback: first contact, renewals, outages, and
//! what must not happen at any of them (T40, T41, T43, T48, T55, T56, T61). Run by cargo.
//!
//! Never: a CA that is a stand-in, a wait without an end, an assertion about speed.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod black_hole;
mod ca;
mod copies;
mod first_contact;
mod impostor;
mod outage;
mod relay;
mod renewal;
mod sidecar;
