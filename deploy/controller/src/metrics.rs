//! Every number that the controller shows on `/metrics`. Called by every room that counts and by
//! `ops`, which renders. docs/METRICS.md lists them; a test compares.
//!
//! Never: a label value chosen by an outsider.

// SPDX-License-Identifier: Apache-2.0

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use crate::inject::{Left, Refusal};

/// From a small pod to one with dozens of containers; the bar is 10 ms at the 99th percentile.
const REVIEW_BUCKETS: &[f64] = &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 1.0];

/// One family: name, kind, labels, meaning.
pub type Row = (&'static str, &'static str, &'static [&'static str], &'static str);

/// Every family that `/metrics` can show, in the order of the documentation.
pub const ROWS: [Row; 18] = [
    (
        "myelin_injection_reviews_total",
        "counter",
        &["result", "reason"],
        "Pods that the API server asked about, by what became of them.",
    ),
    (
        "myelin_injection_duration_seconds",
        "histogram",
        &[],
        "Time from a review's last byte to its answer.",
    ),
    (
        "myelin_injection_warnings_total",
        "counter",
        &[],
        "Warnings that were sent along with answers.",
    ),
    (
        "myelin_controller_bundle_reads_total",
        "counter",
        &["outcome"],
        "Looks at the trust bundle's file.",
    ),
    (
        "myelin_controller_bundle_roots",
        "gauge",
        &[],
        "Roots in the trust bundle that pods are injected with; 0 before the first.",
    ),
    (
        "myelin_controller_certificate_looks_total",
        "counter",
        &["outcome"],
        "Looks at the webhook's certificate and at its registration.",
    ),
    (
        "myelin_controller_certificate_not_after_seconds",
        "gauge",
        &[],
        "When the webhook's own certificate ends, in Unix time; 0 before the first, and with files.",
    ),
    (
        "myelin_controller_config_map_looks_total",
        "counter",
        &["outcome"],
        "Looks at the trust bundle's ConfigMaps in meshed namespaces.",
    ),
    (
        "myelin_controller_config_maps",
        "gauge",
        &[],
        "Meshed namespaces whose ConfigMap was right at the last look.",
    ),
    (
        "myelin_controller_service_streams",
        "gauge",
        &[],
        "Sidecars that watch services at this controller.",
    ),
    (
        "myelin_controller_service_answers_total",
        "counter",
        &[],
        "Answers about services that were given to sidecars.",
    ),
    (
        "myelin_controller_policies",
        "gauge",
        &["kind", "accepted"],
        "Policies in the cluster, by kind and by whether they are accepted whole.",
    ),
    (
        "myelin_controller_policies_over_bound",
        "gauge",
        &[],
        "Sidecars here whose policies are together more than a sidecar takes; what does not fit is closed.",
    ),
    (
        "myelin_controller_policy_streams",
        "gauge",
        &[],
        "Sidecars that follow their policy at this controller.",
    ),
    (
        "myelin_controller_policy_answers_total",
        "counter",
        &[],
        "Answers about policies that were given to sidecars.",
    ),
    (
        "myelin_controller_policy_status_writes_total",
        "counter",
        &["outcome"],
        "Writes of policies' own status.",
    ),
    ("myelin_controller_ready", "gauge", &[], "1 while /ready answers 200, else 0."),
    (
        "myelin_controller_build_info",
        "gauge",
        &["version"],
        "Always 1; the label says which build runs.",
    ),
];

/// What became of a pod, with its reason where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reviewed {
    Injected,
    /// It had everything already.
    Unchanged,
    Left(&'static str),
    Refused(&'static str),
    /// No review of a pod, or none that can be read.
    Unreadable,
    /// We hold no trust bundle yet.
    Unready,
}

impl Reviewed {
    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Injected => ["injected", ""],
            Self::Unchanged => ["unchanged", ""],
            Self::Left(word) => ["left", word],
            Self::Refused(word) => ["refused", word],
            Self::Unreadable => ["unreadable", ""],
            Self::Unready => ["unready", ""],
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let left = Left::ALL.map(|why| Self::Left(why.word()));
        let refused = Refusal::WORDS.map(Self::Refused);
        let plain = [Self::Injected, Self::Unchanged, Self::Unreadable, Self::Unready];
        plain.into_iter().chain(left).chain(refused)
    }
}

pub struct Metrics {
    registry: Registry,
    reviews: IntCounterVec,
    duration: Histogram,
    warnings: IntCounterVec,
    bundle_reads: IntCounterVec,
    bundle_roots: IntGauge,
    certificate_looks: IntCounterVec,
    certificate_not_after: IntGauge,
    config_map_looks: IntCounterVec,
    config_maps: IntGauge,
    service_streams: IntGauge,
    service_answers: IntCounterVec,
    policies: IntGaugeVec,
    policies_over_bound: IntGauge,
    policy_streams: IntGauge,
    policy_answers: IntCounterVec,
    policy_status_writes: IntCounterVec,
    ready: IntGauge,
}

impl Metrics {
    /// Every series is there from the start, so that a rate is never of a series that just began.
    pub fn new() -> Self {
        let registry = Registry::new();
        let [
            reviews,
            duration,
            warnings,
            bundle_reads,
            bundle_roots,
            certificate_looks,
            certificate_not_after,
            config_map_looks,
            config_maps,
            streams,
            answers,
            policies,
            over_bound,
            policy_streams,
            policy_answers,
            status_writes,
            ready,
            build,
        ] = ROWS;
        let buckets = HistogramOpts::new(duration.0, duration.3).buckets(REVIEW_BUCKETS.to_vec());
        let duration = Histogram::with_opts(buckets).expect("the table's names are valid");
        let metrics = Self {
            reviews: registered(&registry, counter(reviews)),
            duration: registered(&registry, duration),
            warnings: registered(&registry, counter(warnings)),
            bundle_reads: registered(&registry, counter(bundle_reads)),
            bundle_roots: registered(&registry, gauge(bundle_roots)).with_label_values::<&str>(&[]),
            certificate_looks: registered(&registry, counter(certificate_looks)),
            certificate_not_after: registered(&registry, gauge(certificate_not_after))
                .with_label_values::<&str>(&[]),
            config_map_looks: registered(&registry, counter(config_map_looks)),
            config_maps: registered(&registry, gauge(config_maps)).with_label_values::<&str>(&[]),
            service_streams: registered(&registry, gauge(streams)).with_label_values::<&str>(&[]),
            service_answers: registered(&registry, counter(answers)),
            policies: registered(&registry, gauge(policies)),
            policies_over_bound: registered(&registry, gauge(over_bound))
                .with_label_values::<&str>(&[]),
            policy_streams: registered(&registry, gauge(policy_streams))
                .with_label_values::<&str>(&[]),
            policy_answers: registered(&registry, counter(policy_answers)),
            policy_status_writes: registered(&registry, counter(status_writes)),
            ready: registered(&registry, gauge(ready)).with_label_values::<&str>(&[]),
            registry,
        };
        registered(&metrics.registry, gauge(build))
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        metrics.show_every_series();
        metrics
    }

    fn show_every_series(&self) {
        for reviewed in Reviewed::all() {
            self.reviews.with_label_values(&reviewed.labels());
        }
        for outcome in ["read", "failed"] {
            self.bundle_reads.with_label_values(&[outcome]);
        }
        for outcome in ["right", "failed"] {
            self.certificate_looks.with_label_values(&[outcome]);
            self.config_map_looks.with_label_values(&[outcome]);
        }
        self.warnings.with_label_values::<&str>(&[]);
        self.service_answers.with_label_values::<&str>(&[]);
        self.policy_answers.with_label_values::<&str>(&[]);
        for outcome in ["written", "failed"] {
            self.policy_status_writes.with_label_values(&[outcome]);
        }
        for kind in ["PeerAuthentication", "AuthorizationPolicy"] {
            self.policies(kind, [0, 0]);
        }
    }

    pub fn reviewed(&self, reviewed: Reviewed, warnings: usize, seconds: f64) {
        self.reviews.with_label_values(&reviewed.labels()).inc();
        self.warnings.with_label_values::<&str>(&[]).inc_by(warnings as u64);
        self.duration.observe(seconds);
    }

    pub fn bundle_read(&self, outcome: &'static str) {
        self.bundle_reads.with_label_values(&[outcome]).inc();
    }

    pub fn bundle_roots(&self, roots: usize) {
        self.bundle_roots.set(i64::try_from(roots).unwrap_or(i64::MAX));
    }

    pub fn certificate_look(&self, outcome: &'static str) {
        self.certificate_looks.with_label_values(&[outcome]).inc();
    }

    /// In seconds since the Unix epoch.
    pub fn certificate_not_after(&self, seconds: u64) {
        self.certificate_not_after.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub fn config_map_look(&self, outcome: &'static str) {
        self.config_map_looks.with_label_values(&[outcome]).inc();
    }

    pub fn config_maps(&self, right: usize) {
        self.config_maps.set(i64::try_from(right).unwrap_or(i64::MAX));
    }

    /// So many streams more, or fewer.
    pub fn service_streams(&self, more: i64) {
        self.service_streams.add(more);
    }

    pub fn service_answer(&self) {
        self.service_answers.with_label_values::<&str>(&[]).inc();
    }

    /// So many of a kind are accepted, and so many are not.
    pub fn policies(&self, kind: &'static str, counts: [usize; 2]) {
        for (accepted, count) in ["true", "false"].into_iter().zip(counts) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.policies.with_label_values(&[kind, accepted]).set(count);
        }
    }

    pub fn policies_over_bound(&self, sidecars: usize) {
        self.policies_over_bound.set(i64::try_from(sidecars).unwrap_or(i64::MAX));
    }

    /// So many streams more, or fewer.
    pub fn policy_streams(&self, more: i64) {
        self.policy_streams.add(more);
    }

    pub fn policy_answer(&self) {
        self.policy_answers.with_label_values::<&str>(&[]).inc();
    }

    pub fn policy_status(&self, outcome: &'static str) {
        self.policy_status_writes.with_label_values(&[outcome]).inc();
    }

    pub fn ready(&self, is: bool) {
        self.ready.set(is.into());
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.expect("what is registered can be encoded")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counter((name, _, labels, help): Row) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("the table's names are valid")
}

fn gauge((name, _, labels, help): Row) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("the table's names are valid")
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documented_table_is_the_registry() {
        let text = include_str!("../../../docs/METRICS.md");
        let (_, section) = text.split_once("\n## Controller").expect("the section");
        let rows = section.split("\n## ").next().unwrap().lines();
        let documented: Vec<String> =
            rows.filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
        let listed = ROWS.map(|(name, kind, labels, help)| {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
        });
        assert_eq!(documented, listed);
        let rendered = Metrics::new().render();
        let shown: BTreeSet<&str> =
            rendered.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let rows = ROWS.map(|(name, kind, ..)| format!("{name} {kind}"));
        assert_eq!(shown, rows.iter().map(String::as_str).collect::<BTreeSet<_>>());
    }

    #[test]
    fn every_result_has_its_series_from_the_start() {
        let metrics = Metrics::new();
        let before = metrics.render().lines().count();
        for reviewed in Reviewed::all() {
            metrics.reviewed(reviewed, 1, 0.001);
        }
        metrics.bundle_read("failed");
        metrics.certificate_look("failed");
        metrics.config_map_look("failed");
        metrics.policy_status("failed");
        metrics.policies("AuthorizationPolicy", [1, 1]);
        assert_eq!(metrics.render().lines().count(), before);
    }
}
