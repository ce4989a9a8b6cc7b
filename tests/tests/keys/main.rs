//! CA keys as an attacker and an operator meet them: what of them another process can read, a root
//! that stays offline, and a root that somebody else made.
//!
//! Never: an own root where the test is about another's.

// SPDX-License-Identifier: Apache-2.0

mod logged;
mod memory;
mod root;
