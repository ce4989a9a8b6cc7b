//! Who is let in and who is refused: certificates of every wrong shape under the real CA's own key,
//! other people's TLS stacks, and bytes that are no handshake, against real sidecars in both
//! directions (T1 to T12, T63). Each refusal names its reason word and has an accepted twin.
//!
//! Never: a sidecar in the test's own process.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod bytes;
mod clients;
mod envoy;
mod openssl;
mod servers;
mod stage;
