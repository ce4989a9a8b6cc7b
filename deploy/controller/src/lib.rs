//! Myelin's controller as a library: every room of it, so that the binary, the operator's tool and
//! the suites run the same code. ARCHITECTURE.md has the map.
//!
//! Never: holds a key of the mesh, stands in the way of a connection, or is needed by a sidecar that
//! already has what it needs.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod bundle;
pub mod ca_address;
pub mod certificate;
pub mod cluster;
pub mod config;
pub mod config_map;
pub mod door;
pub mod inject;
pub mod manifests;
pub mod metrics;
pub mod offline;
pub mod policies;
pub mod preflight;
pub mod services;
pub mod webhook;
