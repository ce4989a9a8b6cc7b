//! The words of the CNI specification 1.1.0: what a runtime asks (environment and standard input), and
//! how a plugin says that it cannot. Called by `main` and `plugin`.
//!
//! Never: a system call, the Kubernetes API, a decision about a pod.

// SPDX-License-Identifier: Apache-2.0

mod call;
mod network;
mod refusal;

pub(crate) use call::{Call, Command, Pod};
pub(crate) use network::{MAX_BYTES as MAX_NETWORK_BYTES, Network, asked_version};
pub(crate) use refusal::{Code, Refusal};

/// The versions that we speak, oldest first. Their results are the same to us, since we pass them through.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of them.
pub(crate) const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];
