//! The client of the controller's policies: what it says of this workload, held here and merged with
//! the file's. `app` runs it on the runtime that carries no workload's bytes; `inbound` reads the
//! merged `policy::Policy`.
//!
//! Never: lets anybody in before the first answer, forgets what was said because nobody says it any
//! more, keeps a policy on disk, takes half an answer.

// SPDX-License-Identifier: Apache-2.0

mod desk;
#[cfg(test)]
mod tests;
mod watch;

pub use self::desk::{InForce, PolicyDesk};
pub use self::watch::Watch;
