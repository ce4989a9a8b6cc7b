//! How long the intermediates of this CA will do, and whether it can make more by itself.
//!
//! Never: a label.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{Gauge, IntGauge, Registry};

/// What `myelin-ca issuer status` says, as gauges.
#[derive(Clone)]
pub struct Issuers {
    pub root_key_held: IntGauge,
    pub successors: IntGauge,
    pub covered_until: Gauge,
    pub alarm: IntGauge,
}

impl Issuers {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            root_key_held: IntGauge::new(
                "myelin_ca_root_key_held",
                "1 if this CA holds its root's key, 0 if that key is elsewhere.",
            )?,
            successors: IntGauge::new(
                "myelin_ca_issuer_successors",
                "Imported intermediates that wait for their turn.",
            )?,
            covered_until: Gauge::new(
                "myelin_ca_issuer_covered_until_seconds",
                "Until when the intermediates that are here follow each other without a gap, in Unix time.",
            )?,
            alarm: IntGauge::new(
                "myelin_ca_issuer_alarm_percent",
                "50, 25 or 10: at most this part of an intermediate's life is left, the root's key is elsewhere, and no successor waits; else 0.",
            )?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.root_key_held.clone()))?;
        registry.register(Box::new(self.successors.clone()))?;
        registry.register(Box::new(self.covered_until.clone()))?;
        registry.register(Box::new(self.alarm.clone()))
    }
}
