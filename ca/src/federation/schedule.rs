//! When a foreign bundle is fetched next. Pure. Called by the keeper.
//!
//! Never: more often than [`MIN_REFRESH`], whatever the other side asks for, or less often than
//! [`MAX_REFRESH`].

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use crate::clock::UnixSeconds;
use crate::journal::FederationRecord;

/// What the SPIFFE specification proposes where the publisher has no better idea.
pub const DEFAULT_REFRESH: Duration = Duration::from_secs(300);
/// A hostile hint must not make us a source of load: eight fetches a minute at most.
pub const MIN_REFRESH: Duration = Duration::from_secs(8);
/// A day: a rotation elsewhere is distributed over days, and its root must reach us in time.
pub const MAX_REFRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// The first wait after a failure; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// No failure makes us wait longer, so that an endpoint that came back is noticed in minutes.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Fetches come up to a tenth early, each process by its own share, so that nobody's readers march.
const SPREAD: f64 = 0.1;

/// `share` is 0 to 1, this process's own.
pub(super) fn is_due(record: &FederationRecord, now: UnixSeconds, share: f64) -> bool {
    let (since, wait) = match (&record.failure, &record.bundle) {
        (Some(failure), _) => (failure.at, retry(failure.attempts)),
        (None, Some(bundle)) => (bundle.fetched, interval(bundle.refresh_hint)),
        (None, None) => return true,
    };
    let wait = wait.mul_f64(1.0 - SPREAD * share.clamp(0.0, 1.0)).as_secs();
    // A clock that went back must not silence us until it has caught up.
    now >= since.saturating_add(wait) || since > now.saturating_add(wait)
}

pub(super) fn interval(hint: Option<u64>) -> Duration {
    hint.map_or(DEFAULT_REFRESH, Duration::from_secs).clamp(MIN_REFRESH, MAX_REFRESH)
}

fn retry(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{EndpointProfile, FailureRecord, ForeignRecord};

    fn record(fetched: Option<(u64, Option<u64>)>, failed: Option<(u64, u32)>) -> FederationRecord {
        let bundle = fetched.map(|(fetched, refresh_hint)| ForeignRecord {
            sequence: 1,
            roots_der: vec![],
            refresh_hint,
            fetched,
            changed: fetched,
        });
        let failure = failed.map(|(at, attempts)| FailureRecord {
            at,
            attempts,
            word: String::new(),
            why: String::new(),
        });
        FederationRecord {
            profile: EndpointProfile::HttpsWeb,
            url: String::new(),
            endpoint_id: None,
            address: None,
            web_roots_pem: None,
            unlogged: false,
            added: 0,
            bundle,
            failure,
        }
    }

    #[test]
    fn fetches_follow_the_hint_within_its_bounds_and_failures_back_off() {
        const NOW: u64 = 1_000_000;
        let table = [
            ("never fetched", None, None, 0.0, true),
            ("what the operator brought", Some((0, None)), None, 0.0, true),
            ("default not over", Some((NOW - 299, None)), None, 0.0, false),
            ("default over", Some((NOW - 300, None)), None, 0.0, true),
            ("a tenth early", Some((NOW - 270, None)), None, 1.0, true),
            ("not earlier", Some((NOW - 269, None)), None, 1.0, false),
            ("hint", Some((NOW - 60, Some(60))), None, 0.0, true),
            ("hint of nothing", Some((NOW - 7, Some(0))), None, 0.0, false),
            ("hint of a year", Some((NOW - 86_400, Some(31_536_000))), None, 0.0, true),
            ("hint of a year, early", Some((NOW - 86_399, Some(u64::MAX))), None, 0.0, false),
            ("one failure", Some((0, None)), Some((NOW - 4, 1)), 0.0, false),
            ("one failure, waited", Some((0, None)), Some((NOW - 5, 1)), 0.0, true),
            ("four failures", None, Some((NOW - 39, 4)), 0.0, false),
            ("four failures, waited", None, Some((NOW - 40, 4)), 0.0, true),
            ("countless failures", None, Some((NOW - 300, u32::MAX)), 0.0, true),
            ("clock went back", Some((NOW + 301, None)), None, 0.0, true),
        ];
        for (what, fetched, failed, share, expected) in table {
            assert_eq!(is_due(&record(fetched, failed), NOW, share), expected, "{what}");
        }
    }
}
