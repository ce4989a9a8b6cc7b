//! What is counted about policies: what a controller said, when, and what audit rules matched.
//! Called by `policies` and `inbound` through `Metrics::policies`.
//!
//! Never: a rule's name as a label, which whoever writes rules could multiply.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{IntCounter, IntGauge, Registry};

use super::register::{int_counter_vec, int_gauge};
use super::{signed, table};

/// What became of an answer of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyUpdate {
    Taken,
    /// What we hold is still so.
    Unchanged,
    /// It cannot be read, or makes no sense here.
    Refused,
}

impl PolicyUpdate {
    pub const ALL: [Self; 3] = [Self::Taken, Self::Unchanged, Self::Refused];

    pub fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Handles, resolved once.
pub struct Policies {
    connected: IntGauge,
    since: IntGauge,
    /// Indexed by `PolicyUpdate as usize`.
    updates: [IntCounter; PolicyUpdate::ALL.len()],
    audited: IntCounter,
}

impl Policies {
    pub(super) fn register(registry: &Registry) -> Self {
        let updates = int_counter_vec(registry, table::POLICY_UPDATES);
        Self {
            connected: int_gauge(registry, table::POLICY_CONNECTED),
            since: int_gauge(registry, table::POLICY_SINCE),
            updates: PolicyUpdate::ALL.map(|what| updates.with_label_values(&[what.word()])),
            audited: int_counter_vec(registry, table::POLICY_AUDITED)
                .with_label_values::<&str>(&[]),
        }
    }

    pub fn connected(&self, is_connected: bool) {
        self.connected.set(i64::from(is_connected));
    }

    /// A policy of the controller is in force since this second of the Unix epoch.
    pub fn taken(&self, since: u64) {
        self.since.set(signed(since));
        self.update(PolicyUpdate::Taken);
    }

    pub fn update(&self, what: PolicyUpdate) {
        self.updates[what as usize].inc();
    }

    /// An audit rule is about a use.
    pub fn audited(&self) {
        self.audited.inc();
    }
}
