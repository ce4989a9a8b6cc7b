//! Real pods without a kubelet: what the injector makes of a pod is played with podman over images of
//! this build, and each promise of the injection is looked at where it matters, with traffic.
//! `myelin_tests::pods` says what of it is real and what is played.
//!
//! Never: a pod that was injected by the test itself.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod addresses;
mod ends;
mod probes;
mod restart;
mod start;
mod traffic;

use std::net::SocketAddr;

use myelin_tests::pods::Played;

/// Where servers serve.
pub(crate) const PORT: u16 = 8_080;

pub(crate) fn endpoint(server: &Played) -> String {
    SocketAddr::new(server.address(), PORT).to_string()
}
