//! The plugin as a container runtime calls it: environment, standard input, standard output, in real
//! network namespaces. Pods come from a fake of the Kubernetes API.
//!
//! Never: a call that a runtime could not make; the node's own network touched.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod api;
mod calls;
mod front;
mod install;
mod refusals;
mod repair;
mod stage;
mod traffic;
