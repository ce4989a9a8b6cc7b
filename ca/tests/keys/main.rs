//! Where CA keys come from, with the real binary: a PKCS#11 token (SoftHSM, which nobody here wrote)
//! that signs, refuses, goes away and comes back; seal keys from a descriptor and from the token.
//!
//! Never: a stand-in for the token.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;
mod seal_key;
mod server;
mod token;
