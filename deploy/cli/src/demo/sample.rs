//! One look at everything that moves: the loads, both sidecars, the wire. Taken by the story a few
//! times a second, shown by the view, judged by the chapters.
//! Never: judges, or asks anybody: it is what the story was told.

// SPDX-License-Identifier: Apache-2.0

use std::time::{SystemTime, UNIX_EPOCH};

use myelin_lab::wire::WireReport;
use tokio::time::Instant;

use super::scrape::Metrics;
use crate::play::Tally;

/// Words of `myelin_renewals_total` that mean a new certificate.
const GOOD: [&str; 2] = ["attested", "renewed"];

#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) loads: Vec<(&'static str, Tally)>,
    pub(super) sidecars: Vec<SidecarState>,
    pub(super) wire: Option<WireReport>,
    pub(super) ca_is_up: bool,
}

/// What one sidecar says about its identity.
#[derive(Clone, Debug, Default)]
pub(super) struct SidecarState {
    pub(super) name: &'static str,
    /// Certificates that it has been issued so far.
    pub(super) issued: u64,
    /// Attempts that came to nothing.
    pub(super) failed_attempts: u64,
    /// The words of the failed ones.
    pub(super) failure_words: Vec<String>,
    pub(super) seconds_left: i64,
}

/// Requests of a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// A load that answered nothing in this stretch, if there is one.
    pub(super) stalled: Option<&'static str>,
    pub(super) why: Option<String>,
}

impl Sample {
    /// What happened between an earlier sample and this one.
    pub(super) fn since(&self, earlier: &Self) -> Stretch {
        let mut stretch = Stretch::default();
        for (name, now) in &self.loads {
            let before = earlier.loads.iter().find(|(other, _)| other == name);
            let before = before.map(|(_, tally)| tally.clone()).unwrap_or_default();
            stretch.ok += now.ok.saturating_sub(before.ok);
            stretch.failed += now.failed.saturating_sub(before.failed);
            if now.ok <= before.ok {
                stretch.stalled = Some(name);
            }
            if now.failed > before.failed {
                stretch.why = now.why.as_ref().map(|why| format!("{name}: {why}"));
            }
        }
        stretch
    }

    /// The life that the shorter-lived of the certificates in use has left.
    pub(super) fn seconds_left(&self) -> i64 {
        self.sidecars.iter().map(|state| state.seconds_left).min().unwrap_or(0)
    }

    /// Whether each sidecar has been issued at least this many certificates since `earlier`.
    pub(super) fn all_renewed(&self, earlier: &Self, times: u64) -> bool {
        let pairs = self.sidecars.iter().zip(&earlier.sidecars);
        pairs.clone().count() > 0
            && pairs.clone().all(|(now, before)| now.issued >= before.issued + times)
    }

    pub(super) fn issued(&self) -> u64 {
        self.sidecars.iter().map(|state| state.issued).sum()
    }

    pub(super) fn failed_attempts(&self) -> u64 {
        self.sidecars.iter().map(|state| state.failed_attempts).sum()
    }
}

impl SidecarState {
    /// As its metrics tell it.
    pub(super) fn read(name: &'static str, metrics: &Metrics) -> Self {
        let renewals = "myelin_renewals_total";
        let issued = GOOD.iter().map(|word| metrics.count(renewals, &[("outcome", word)])).sum();
        let words = metrics.values(renewals, "outcome");
        let not_after = metrics.count("myelin_svid_not_after_seconds", &[]);
        Self {
            name,
            issued,
            failed_attempts: metrics.count(renewals, &[]) - issued,
            failure_words: words
                .into_iter()
                .filter(|word| !GOOD.contains(&word.as_str()))
                .collect(),
            seconds_left: not_after.cast_signed() - unix_now().cast_signed(),
        }
    }
}

impl Stretch {
    pub(super) fn is_clean(&self) -> bool {
        self.failed == 0 && self.ok > 0 && self.stalled.is_none()
    }

    /// `1,234 requests, 0 failed`, and why if any did.
    pub(super) fn words(&self) -> String {
        let mut words = format!("{} requests, {} failed", grouped(self.ok), grouped(self.failed));
        if let Some(why) = &self.why {
            words += &format!(" ({why})");
        }
        if let Some(name) = self.stalled {
            words += &format!("; {name} stood still");
        }
        words
    }
}

/// `12345` as `12,345`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What the certificates' dates are compared with.
#[expect(clippy::disallowed_methods, reason = "dates are compared with the wall clock, here alone")]
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    fn sample(ok: u64, failed: u64) -> Sample {
        let tally = Tally { ok, failed, why: (failed > 0).then(|| "reset".to_owned()) };
        let (loads, sidecars) = (vec![("http", tally)], Vec::new());
        Sample { at: Instant::now(), loads, sidecars, wire: None, ca_is_up: true }
    }

    #[test]
    fn stretch_with_answers_alone_is_clean() {
        let stretch = sample(30, 0).since(&sample(10, 0));
        assert_eq!((stretch.ok, stretch.is_clean()), (20, true));
    }

    #[test]
    fn stretch_with_a_failure_or_a_standstill_is_not_clean() {
        let failed = sample(30, 1).since(&sample(10, 0));
        assert!(!failed.is_clean() && failed.words().contains("http: reset"));
        assert!(!sample(10, 0).since(&sample(10, 0)).is_clean());
    }

    #[test]
    fn nobody_renewed_where_there_is_nobody() {
        assert!(!sample(1, 0).all_renewed(&sample(1, 0), 0));
    }
}
