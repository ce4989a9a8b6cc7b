//! What is counted about the issuing log. `log` counts here.
//!
//! Never: a label but a witness' name, of which an operator configures a few, and its answer.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::ISSUE_BUCKETS;

/// One certificate at rest, a thousand at full speed.
const BATCH_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// Clones count together.
#[derive(Clone)]
pub struct LogMetrics {
    pub entries: IntGauge,
    pub append_duration: Histogram,
    pub batch_entries: Histogram,
    pub failures: IntCounter,
    pub witness_answers: IntCounterVec,
    pub witnessed_entries: IntGauge,
}

impl LogMetrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let append_duration = HistogramOpts::new(
            "myelin_ca_log_append_duration_seconds",
            "Time to write one batch of certificates to the log: files, journal, checkpoint.",
        );
        let batch_entries = HistogramOpts::new(
            "myelin_ca_log_batch_entries",
            "Certificates in one batch of the log.",
        );
        Ok(Self {
            entries: IntGauge::new("myelin_ca_log_entries", "Certificates in the issuing log.")?,
            append_duration: Histogram::with_opts(append_duration.buckets(ISSUE_BUCKETS.to_vec()))?,
            batch_entries: Histogram::with_opts(batch_entries.buckets(BATCH_BUCKETS.to_vec()))?,
            failures: IntCounter::new(
                "myelin_ca_log_failures_total",
                "Batches that could not be logged; none of their certificates was handed out.",
            )?,
            witness_answers: IntCounterVec::new(
                Opts::new(
                    "myelin_ca_log_witness_answers_total",
                    "Questions for a cosignature, by witness and how each ended.",
                ),
                &["witness", "outcome"],
            )?,
            witnessed_entries: IntGauge::new(
                "myelin_ca_log_witnessed_entries",
                "Certificates under the newest checkpoint that enough witnesses have cosigned.",
            )?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.entries.clone()))?;
        registry.register(Box::new(self.append_duration.clone()))?;
        registry.register(Box::new(self.batch_entries.clone()))?;
        registry.register(Box::new(self.failures.clone()))?;
        registry.register(Box::new(self.witness_answers.clone()))?;
        registry.register(Box::new(self.witnessed_entries.clone()))
    }
}
