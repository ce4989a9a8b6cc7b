//! The metrics of root rotation. `app` and the ops port fill them.
//!
//! Never: a SPIFFE ID as a label.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Ladder {
    pub rung: IntGauge,
    pub outstanding: IntGauge,
    pub trust_record: IntGauge,
    pub steps: IntCounterVec,
    pub acks: IntCounterVec,
    pub ignored: IntCounterVec,
    pub root_not_after: Gauge,
    pub late: IntGaugeVec,
}

impl Ladder {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let counter = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label])
        };
        let ladder = Self {
            rung: gauge(
                "myelin_ca_ladder_rung",
                "Where root rotation stands: 0 settled, 1 prepared, 2 activated.",
            )?,
            outstanding: gauge(
                "myelin_ca_ladder_outstanding",
                "SPIFFE IDs that have not acknowledged what the next rung rests on.",
            )?,
            trust_record: gauge(
                "myelin_ca_trust_record",
                "Number of the trust record in force; it must be the same at every replica.",
            )?,
            steps: counter(
                "myelin_ca_ladder_steps_total",
                "Steps of the ladder that this replica made by schedule.",
                "step",
            )?,
            acks: counter(
                "myelin_ca_acks_total",
                "Acknowledgements of bundles by what became of them.",
                "outcome",
            )?,
            ignored: counter(
                "myelin_ca_trust_ignored_total",
                "Trust records of the store that were not believed: somebody has changed the store.",
                "reason",
            )?,
            root_not_after: Gauge::new(
                "myelin_ca_root_not_after_seconds",
                "End of the active root, in Unix time.",
            )?,
            late: IntGaugeVec::new(
                Opts::new(
                    "myelin_ca_issuer_late_percent",
                    "50, 25 or 10 if less than that part of its life is left and there is no successor, else 0.",
                ),
                &["issuer"],
            )?,
        };
        registry.register(Box::new(ladder.rung.clone()))?;
        registry.register(Box::new(ladder.outstanding.clone()))?;
        registry.register(Box::new(ladder.trust_record.clone()))?;
        registry.register(Box::new(ladder.steps.clone()))?;
        registry.register(Box::new(ladder.acks.clone()))?;
        registry.register(Box::new(ladder.ignored.clone()))?;
        registry.register(Box::new(ladder.root_not_after.clone()))?;
        registry.register(Box::new(ladder.late.clone()))?;
        Ok(ladder)
    }

    /// One value of each family that has labels, so that all are gathered.
    pub(super) fn touch(&self) {
        self.steps.with_label_values(&["prepare"]);
        self.acks.with_label_values(&["noted"]);
        self.ignored.with_label_values(&["unsigned"]);
        self.late.with_label_values(&["intermediate"]);
    }
}
