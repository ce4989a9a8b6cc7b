//! No proxy: what the machine and the generator can do. Called by `peers`.
//!
//! Never: redirects anything; not even conntrack is loaded for it.

// SPDX-License-Identifier: Apache-2.0

pub(super) const ABOUT: &str = "no proxy: plaintext from pod to pod, no rules";
