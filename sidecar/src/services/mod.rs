//! The service directory's client: what is behind the virtual addresses that this workload dials, asked
//! of the controller on demand and watched from then on. `app` runs it on the runtime that carries
//! no workload's bytes; `outbound` asks the [`ServiceDesk`] and reads `directory::Services`.
//!
//! Never: connects before somebody asks, forgets what was said because nobody says it any more.

// SPDX-License-Identifier: Apache-2.0

mod desk;
mod watch;

pub use self::desk::{ANSWER_WITHIN, Asked, ServiceDesk};
pub use self::watch::Watch;
