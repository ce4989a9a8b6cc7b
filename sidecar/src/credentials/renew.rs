//! When to renew and how long to wait after a failure: pure arithmetic on the monotonic clock.
//! Called by `credentials::run` and by the watch.
//!
//! Never: reads a clock, sleeps, or lets a jump of the wall clock move the schedule.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// Renewal starts in the half of the life: the other half is there for a CA that is away.
const RENEW_FROM_PERCENT: u32 = 50;
/// ... and is spread over this much of the life, so that a fleet that started together does not
/// come together (10 % of 24 h is 144 minutes).
const SPREAD_PERCENT: u32 = 10;
/// The first wait after a failure: shorter hammers a CA that is just restarting.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// No wait is longer, so that a CA that came back is noticed within half a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait while there is no identity at all: a pod that starts stands still until then.
const LONGEST_WAIT_AT_START: Duration = Duration::from_secs(5);
/// A tenth of a very short life (tests) would be a busy loop.
const SHORTEST_CEILING: Duration = Duration::from_millis(500);
/// One attempt (connection, handshake, answer) may take a quarter of a short life, at least two
/// seconds (a slow link needs four round trips) and at most ten.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(2);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);

/// When one SVID was taken over, and how long it lives from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    renew_at: Instant,
    life: Duration,
}

impl Schedule {
    /// `received` is the monotonic instant and `now` the wall clock (unix seconds) at which the
    /// SVID arrived; `jitter` is a uniform draw from 0..=1. The wall clock is read this once: what
    /// it does later does not matter. Backdating does not count as life.
    pub(super) fn new(
        received: Instant,
        now: u64,
        not_before: u64,
        not_after: u64,
        jitter: f64,
    ) -> Self {
        let stated = not_after.saturating_sub(not_before);
        let life = Duration::from_secs(not_after.saturating_sub(now).min(stated));
        let spread = life * SPREAD_PERCENT / 100;
        let wait = life * RENEW_FROM_PERCENT / 100 + spread.mul_f64(jitter.clamp(0.0, 1.0));
        Self { renew_at: received + wait, life }
    }

    pub(super) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// How long the SVID lives, counted from its arrival.
    pub(super) fn life(&self) -> Duration {
        self.life
    }
}

/// The waits between attempts: exponential with jitter, from [`FIRST_WAIT`] up to [`ceiling`].
/// `life` is that of the SVID which is to be renewed; none before the first one.
pub(super) fn waits(life: Option<Duration>) -> ExponentialBackoff {
    // backon adds a random 0..=delay on top of each delay: half of the ceiling keeps the sum below.
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(ceiling(life) / 2)
        .without_max_times()
        .build()
}

/// The longest wait between two attempts, hence how late a CA that came back can be noticed: a
/// tenth of the life, and never more than 30 s.
pub(super) fn ceiling(life: Option<Duration>) -> Duration {
    match life {
        Some(life) => (life / 10).clamp(SHORTEST_CEILING, LONGEST_WAIT),
        None => LONGEST_WAIT_AT_START,
    }
}

/// How long one attempt may take in all.
pub(super) fn attempt_deadline(life: Option<Duration>) -> Duration {
    life.map_or(LONGEST_ATTEMPT, |life| (life / 4).clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400;
    const NOW: u64 = 1_800_000_000;

    #[tokio::test(start_paused = true)]
    async fn renewal_falls_between_half_and_six_tenths_of_the_life() {
        let received = Instant::now();
        for (not_before, not_after, jitter, expected_seconds) in [
            (NOW, NOW + DAY, 0.0, 43_200),
            (NOW, NOW + DAY, 1.0, 51_840),
            (NOW - 60, NOW + DAY, 0.0, 43_200),
            (NOW - 60, NOW + 20, 0.0, 10),
            (NOW - 60, NOW + 20, 1.0, 12),
            // Our clock is an hour behind: the stated life counts, not what we make of it.
            (NOW + 3_600, NOW + 3_900, 0.0, 150),
            // Our clock says that it has expired: due at once.
            (NOW - 7_200, NOW - 3_600, 1.0, 0),
            (NOW, NOW + 100, 7.5, 60),
        ] {
            let schedule = Schedule::new(received, NOW, not_before, not_after, jitter);
            assert_eq!(
                schedule.renew_at() - received,
                Duration::from_secs(expected_seconds),
                "{not_before}..{not_after} jitter {jitter}"
            );
        }
    }

    #[test]
    fn ceilings_are_a_tenth_of_the_life_within_bounds() {
        for (life, expected_ms) in [
            (None, 5_000),
            (Some(1), 500),
            (Some(20), 2_000),
            (Some(300), 30_000),
            (Some(DAY), 30_000),
        ] {
            let life = life.map(Duration::from_secs);
            assert_eq!(ceiling(life), Duration::from_millis(expected_ms), "{life:?}");
        }
    }

    #[test]
    fn attempts_have_a_deadline_between_two_and_ten_seconds() {
        for (life, expected) in [(None, 10), (Some(4), 2), (Some(20), 5), (Some(DAY), 10)] {
            let life = life.map(Duration::from_secs);
            assert_eq!(attempt_deadline(life), Duration::from_secs(expected), "{life:?}");
        }
    }

    #[test]
    fn waits_never_end() {
        assert_eq!(waits(None).take(10_000).count(), 10_000);
    }

    #[test]
    fn waits_of_a_fleet_that_failed_together_are_spread_over_half_the_ceiling() {
        let life = Some(Duration::from_secs(DAY));
        let mut tenth: Vec<_> = (0..200).filter_map(|_| waits(life).nth(10)).collect();
        tenth.sort_unstable();
        let (first, last) = (tenth[20], tenth[180]);
        assert!(last - first > ceiling(life) / 4, "four fifths lie in {first:?} to {last:?}");
        tenth.dedup();
        assert!(tenth.len() > 150, "only {} different waits of 200", tenth.len());
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_ceiling(life in proptest::option::of(0..10 * DAY)) {
            let life = life.map(Duration::from_secs);
            for wait in waits(life).take(50) {
                prop_assert!(wait <= ceiling(life), "{wait:?} > {:?}", ceiling(life));
                prop_assert!(wait >= FIRST_WAIT);
            }
        }

        #[test]
        fn renewal_never_comes_after_the_end(
            life in 0..10 * DAY, backdated in 0..120_u64, jitter in 0.0..=1.0_f64,
        ) {
            let received = Instant::now();
            let schedule = Schedule::new(received, NOW, NOW - backdated, NOW + life, jitter);
            prop_assert!(schedule.renew_at() <= received + Duration::from_secs(life));
        }
    }
}
