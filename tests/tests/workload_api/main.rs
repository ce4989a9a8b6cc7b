//! The workload's own SVID over the sidecar's Unix socket, asked for by clients that nobody here
//! wrote: the `spiffe` crate, PyPI's `spiffe`, and Envoy by its secret discovery.
//!
//! Never: a client of our own making where an independent one will do.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod clients;
mod envoy;
mod federated;
mod ladder;
mod refusals;
mod stage;
mod withdrawn;
