//! Myelin at a real API server: the chart as it is taken by it, the CA and the controller under the
//! service accounts that the chart makes, admission, tokens. Kubelets are not needed, and none of their work
//! is expected: an API server with its etcd is enough (envtest's way), and the tests play what else there is.
//!
//! It runs where KUBECONFIG names an API server, whose user may install the chart; `tests/run` then runs it
//! with the other suites. Elsewhere each test is left out by name, and the summary counts it as skipped.
//! Myelin's programs run beside the test. What they must be called by, the API server calls at the address
//! from which this machine reaches it.
//!
//! Never: passes without an API server; a fake of one.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod admission;
mod api;
mod chart;
mod front;
mod installed;
mod issue;
mod programs;
mod replica;
