//! The harness of the end-to-end suites: a real CA and real sidecars as processes, one network
//! namespace each, a capture on the wire between them, and servers that nobody here wrote.
//! Called by the suites in `tests/tests`.
//!
//! Never: a stand-in for a part of the mesh, a skip that nobody asked for, a name on the host.

// SPDX-License-Identifier: Apache-2.0

pub mod binaries;
pub mod ca;
pub mod federation;
pub mod forge;
pub mod genuine;
pub mod hole;
pub mod http;
pub mod knock;
pub mod mesh;
pub mod metrics;
pub mod pods;
pub mod programs;
pub mod running;
pub mod scenes;
pub mod servers;
pub mod watch;
pub mod workload;

pub use mesh::{Mesh, Options};
pub use workload::{Spec, Workload, declared_peer};
