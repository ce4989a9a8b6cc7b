//! The Myelin certificate authority as a library: the binary is a thin `main` around [`app`], and
//! tests start a CA in their own process with [`app::Builder`].
//!
//! Rooms, each importing only from those below it: `app -> config -> api -> authority -> rotation,
//! attest, log -> signer, journal -> template, check, store, https`, and at the bottom `clock`,
//! `random`, `replica`, `datadir`, `metrics`, `scheduling`. Only `signer` ever holds a CA key.
//!
//! Never: links the data plane.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod app;
pub mod attest;
pub mod authority;
pub mod check;
pub mod clock;
pub mod config;
pub mod datadir;
pub mod federation;
pub mod https;
pub mod journal;
pub mod lockdown;
pub mod log;
pub mod metrics;
pub mod offline_root;
pub mod operator;
pub mod random;
pub mod replica;
pub mod rotation;
pub mod scheduling;
pub mod signer;
pub mod store;
pub mod template;
