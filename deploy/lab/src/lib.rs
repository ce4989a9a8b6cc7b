//! The ground under the `myelin demo` command and the end-to-end suites: network namespaces ("pods")
//! joined by a bridge ("the wire"), processes inside them, and a raw capture of what crosses.
//! Never: `unsafe`, a hook between fork and exec, or a name on the host (no `/run/netns`, link or rule).

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ground;
mod lab;
mod launch;
mod link;
mod netns;
mod pod;
mod process;
pub mod wire;

pub use ground::Ground;
pub use lab::{Lab, addresses};
pub use launch::Command;
pub use netns::Netns;
pub use pod::Pod;
pub use process::{Line, Proc, Stream};
