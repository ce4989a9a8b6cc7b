//! What is counted of federation: refreshes, the age of what is held, and our own endpoint.
//!
//! Never: an age for a domain that is no longer federated; its counts stay until the next start.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Label sets stay closed: at most 32 domains, and the words of `federation`.
#[derive(Clone)]
pub struct Federation {
    pub epoch: IntGauge,
    pub requests: IntCounterVec,
    refreshes: IntCounterVec,
    fetched: GaugeVec,
    passed_over: IntGaugeVec,
}

impl Federation {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let all = Self {
            epoch: IntGauge::new(
                "myelin_ca_federation_epoch",
                "Epoch of the set of foreign bundles; grows at each change.",
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "myelin_ca_federation_requests_total",
                    "Requests to our own bundle endpoint, by HTTP status; handshake if TLS failed.",
                ),
                &["outcome"],
            )?,
            refreshes: IntCounterVec::new(
                Opts::new(
                    "myelin_ca_federation_refreshes_total",
                    "Scheduled fetches of foreign bundles, by trust domain and outcome word.",
                ),
                &["trust_domain", "outcome"],
            )?,
            fetched: GaugeVec::new(
                Opts::new(
                    "myelin_ca_federation_fetched_seconds",
                    "When a foreign domain's endpoint last confirmed its bundle, in Unix time; 0 if never.",
                ),
                &["trust_domain"],
            )?,
            passed_over: IntGaugeVec::new(
                Opts::new(
                    "myelin_ca_federation_passed_over",
                    "Federation records that lie in the store and are not believed, by reason.",
                ),
                &["reason"],
            )?,
        };
        registry.register(Box::new(all.epoch.clone()))?;
        registry.register(Box::new(all.requests.clone()))?;
        registry.register(Box::new(all.refreshes.clone()))?;
        registry.register(Box::new(all.fetched.clone()))?;
        registry.register(Box::new(all.passed_over.clone()))?;
        Ok(all)
    }

    pub fn refreshed(&self, trust_domain: &str, outcome: &str) {
        self.refreshes.with_label_values(&[trust_domain, outcome]).inc();
    }

    pub fn fetched(&self, trust_domain: &str, at: u64) {
        self.fetched.with_label_values(&[trust_domain]).set(at as f64);
    }

    /// The reasons of all that is passed over now.
    pub fn passed_over(&self, reasons: impl Iterator<Item = &'static str>) {
        self.passed_over.reset();
        reasons.for_each(|reason| self.passed_over.with_label_values(&[reason]).inc());
    }

    /// A domain that is no longer federated.
    pub fn forget(&self, trust_domain: &str) {
        // An error means that it was never there.
        let _ = self.fetched.remove_label_values(&[trust_domain]);
    }

    pub(super) fn touch(&self) {
        self.requests.with_label_values(&["200"]);
        self.refreshed("b.example", "changed");
        self.fetched("b.example", 0);
        self.passed_over(["unlisted"].into_iter());
    }
}
