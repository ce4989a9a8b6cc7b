//! The service directory's client: what is behind the virtual addresses that this workload dials, asked
//! of the controller on demand and watched from then on. `app` runs it on the runtime that carries
//! no workload's bytes; `outbound` asks the [`ServiceDesk`] and reads `directory::Services`.
//!
//! Never: takes anybody for the controller who is not exactly the configured SPIFFE ID, connects
//! before somebody asks, forgets what was said because nobody says it any more.

// SPDX-License-Identifier: Apache-2.0

mod desk;
mod watch;

pub use self::desk::{ANSWER_WITHIN, Asked, ServiceDesk};
pub use self::watch::{ALPN, Watch};

use myelin_identity::id::SpiffeId;

use crate::addr::Endpoint;

/// What the operator wrote, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where controllers answer, tried in turn. At least one.
    pub addresses: Vec<Endpoint>,
    /// Who a controller is: the whole ID.
    pub id: SpiffeId,
}
