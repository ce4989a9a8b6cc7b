//! The Myelin sidecar as a library: every room of the proxy, so that the binary, the benches and
//! the end-to-end suites run the same code. ARCHITECTURE.md has the map.
//!
//! Never: holds a CA key, issues a certificate, or lets a meshed destination fall back to
//! plaintext.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
pub mod admin;
pub mod app;
pub mod auditor;
pub mod config;
pub mod controller;
pub mod credentials;
pub mod detect;
pub mod directory;
pub mod drain;
pub mod inbound;
pub mod intercept;
pub mod metrics;
pub mod net;
pub mod outbound;
pub mod policies;
pub mod policy;
pub mod probes;
pub mod proofs;
pub mod relay;
pub mod report;
pub mod services;
pub mod tls;
pub mod unix_socket;
pub mod wire;
pub mod workload_api;

#[cfg(test)]
mod testing;
