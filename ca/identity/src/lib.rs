//! What sidecar and CA must agree on: SPIFFE IDs, trust bundles, SVIDs, the verifier of a peer, the
//! issuance protocol, and how secrets rest on disk. Everything else in the workspace stands on it.
//!
//! Rooms, each importing only from those after it:
//! `services`, `policy` -> `id`, `wire`;
//! `issuance`, `verify` -> `svid`, `bundle` -> `id`, `log` -> `x509`; `bundle` -> `pem`; `seal` stands alone.
//! Never: I/O, a clock (callers pass `now`), async, or the making and keeping of a private key.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bundle;
pub mod id;
pub mod issuance;
pub mod log;
pub mod pem;
pub mod policy;
pub mod seal;
pub mod services;
pub mod svid;
pub mod verify;

mod wire;
mod x509;

#[cfg(test)]
mod testing;

pub use rustls_pki_types::UnixTime;
