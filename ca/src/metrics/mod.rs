//! The CA's metrics: one registry, closed label sets, base units. `api` and `app` count here, the
//! ops port shows it.
//!
//! Never: a label value that a caller chose.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

mod federation;
mod issuers;
mod log;
mod process;
mod rotation;

pub use rotation::Ladder;

pub use federation::Federation;
pub use issuers::Issuers;
pub use log::LogMetrics;

/// An issue is a few signatures and one fsync: a millisecond on a good disk, a second on a bad one.
const ISSUE_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Every metric of the CA. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub issued: IntCounterVec,
    pub issue_duration: Histogram,
    pub signer_not_after: Gauge,
    pub own_svid_not_after: Gauge,
    pub live_svids: IntGauge,
    pub bundle_generation: IntGauge,
    pub deny_epoch: IntGauge,
    pub alarms: IntCounter,
    pub connections: IntGauge,
    pub handshakes: IntCounterVec,
    pub watches: prometheus::IntGaugeVec,
    pub signer_renewals: IntCounter,
    pub short_lifetimes: IntGauge,
    pub federation: Federation,
    pub log: LogMetrics,
    pub issuers: Issuers,
    pub ladder: Ladder,
}

/// One line of the documented table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    pub help: String,
    pub kind: &'static str,
    pub labels: Vec<String>,
}

impl Metrics {
    /// A registry with everything in it, at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            federation: Federation::new(&registry)?,
            ladder: Ladder::new(&registry)?,
            registry,
            issued: IntCounterVec::new(
                Opts::new(
                    "myelin_ca_issued_total",
                    "Issue requests by outcome word (issued, repeated, or the reason of a refusal) and attestor.",
                ),
                &["outcome", "attestor"],
            )?,
            issue_duration: issue_duration()?,
            signer_not_after: Gauge::new(
                "myelin_ca_signer_not_after_seconds",
                "End of the issuing intermediate, in Unix time.",
            )?,
            own_svid_not_after: Gauge::new(
                "myelin_ca_own_svid_not_after_seconds",
                "End of the CA's own SVID, in Unix time.",
            )?,
            live_svids: IntGauge::new(
                "myelin_ca_live_svids",
                "Workloads with an unexpired current SVID.",
            )?,
            bundle_generation: IntGauge::new(
                "myelin_ca_bundle_generation",
                "Generation of the trust bundle.",
            )?,
            deny_epoch: IntGauge::new(
                "myelin_ca_deny_epoch",
                "Epoch of the deny list; grows at each alarm, revocation and end of one.",
            )?,
            alarms: IntCounter::new(
                "myelin_ca_alarms_total",
                "Copied SVIDs that were detected and denied.",
            )?,
            connections: IntGauge::new(
                "myelin_ca_connections",
                "Open TLS connections to the gRPC port.",
            )?,
            handshakes: IntCounterVec::new(
                Opts::new(
                    "myelin_ca_handshakes_total",
                    "TLS handshakes on the gRPC port by outcome.",
                ),
                &["outcome"],
            )?,
            watches: prometheus::IntGaugeVec::new(
                Opts::new("myelin_ca_watches", "Open watch streams by kind (bundle or directory)."),
                &["kind"],
            )?,
            signer_renewals: IntCounter::new(
                "myelin_ca_signer_renewals_total",
                "Times that the issuing intermediate was renewed.",
            )?,
            short_lifetimes: IntGauge::new(
                "myelin_ca_short_lifetimes_allowed",
                "1 if the test flag that allows lifetimes below 5 minutes is set, which production must not do.",
            )?,
            log: LogMetrics::new()?,
            issuers: Issuers::new()?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let build = GaugeVec::new(
            Opts::new("myelin_ca_build_info", "Always 1; the label says which version runs."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let registry = &self.registry;
        registry.register(Box::new(build))?;
        registry.register(Box::new(self.issued.clone()))?;
        registry.register(Box::new(self.issue_duration.clone()))?;
        registry.register(Box::new(self.signer_not_after.clone()))?;
        registry.register(Box::new(self.own_svid_not_after.clone()))?;
        registry.register(Box::new(self.live_svids.clone()))?;
        registry.register(Box::new(self.bundle_generation.clone()))?;
        registry.register(Box::new(self.deny_epoch.clone()))?;
        registry.register(Box::new(self.alarms.clone()))?;
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.handshakes.clone()))?;
        registry.register(Box::new(self.watches.clone()))?;
        registry.register(Box::new(self.signer_renewals.clone()))?;
        registry.register(Box::new(self.short_lifetimes.clone()))?;
        self.log.register(registry)?;
        self.issuers.register(registry)?;
        registry.register(Box::new(process::Collector::new()?))
    }

    /// The text exposition format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Encoding into memory fails only for a family without metrics, which gather leaves out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

fn issue_duration() -> Result<Histogram, prometheus::Error> {
    let named = HistogramOpts::new(
        "myelin_ca_issue_duration_seconds",
        "Time from a received Issue request to its answer, refusals included.",
    );
    Histogram::with_opts(named.buckets(ISSUE_BUCKETS.to_vec()))
}

/// The table of all metrics, for the documentation and the test that compares them.
pub fn describe() -> Result<Vec<Description>, prometheus::Error> {
    let metrics = Metrics::new()?;
    // Families without a label value yet are not gathered: touch one of each.
    metrics.issued.with_label_values(&["issued", "join_token"]);
    metrics.handshakes.with_label_values(&["completed"]);
    metrics.watches.with_label_values(&["bundle"]);
    metrics.log.witness_answers.with_label_values(&["witness", "cosigned"]);
    metrics.federation.touch();
    metrics.ladder.touch();
    let families = metrics.registry.gather();
    let described = families.iter().map(|family| Description {
        name: family.name().to_owned(),
        help: family.help().to_owned(),
        kind: match family.get_field_type() {
            prometheus::proto::MetricType::COUNTER => "counter",
            prometheus::proto::MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        },
        labels: family.get_metric().first().map_or_else(Vec::new, |metric| {
            metric.get_label().iter().map(|label| label.name().to_owned()).collect()
        }),
    });
    Ok(described.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_with_its_labels() {
        let described = describe().unwrap();
        let issued =
            described.iter().find(|metric| metric.name == "myelin_ca_issued_total").unwrap();
        assert_eq!(issued.labels, ["attestor", "outcome"]);
        assert_eq!(issued.kind, "counter");
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_cpu_seconds_total",
            "myelin_ca_build_info",
        ] {
            assert!(described.iter().any(|metric| metric.name == name), "{name}");
        }
        assert!(described.iter().all(|metric| metric.help.ends_with('.')), "{described:?}");
    }
}
