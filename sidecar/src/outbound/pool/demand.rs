//! How much an endpoint is wanted: whether connections to it should be made ready ahead of their
//! use, and when to leave it alone. Pure; the moment is handed in. Called by `Pool`.
//!
//! Never: a connection for an endpoint that nobody has used of late; a second try at a dead one
//! before its pause is over.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tokio::time::Instant;

use crate::directory::Target;

/// An endpoint with so many uses within `HOT_FOR` is hot: one use may be all there will ever be,
/// three in ten seconds are a habit.
const HOT_USES: usize = 3;

/// How long a use counts.
const HOT_FOR: Duration = Duration::from_secs(10);

/// Idle connections that a hot endpoint has: the next use and the one beside it find one, while
/// the connection of the last use still settles.
pub(super) const READY: usize = 2;

/// Handshakes ahead of need that run at once towards one endpoint: as many as may be missing.
const MOST_WARMING: usize = READY;

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// No pause is longer, so that an endpoint that is back gets its connections soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One endpoint's demand.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// The last uses, in a ring.
    uses: [Option<Instant>; HOT_USES],
    next: usize,
    warming: usize,
    failures: u32,
    not_before: Option<Instant>,
    /// Whom to expect, as of the last use.
    target: Option<Target>,
}

impl Demand {
    pub(super) fn used(&mut self, target: &Target, now: Instant) {
        // Cloned only when it changes: a use compares, and seldom more.
        if self.target.as_ref() != Some(target) {
            self.target = Some(target.clone());
        }
        self.uses[self.next] = Some(now);
        self.next = (self.next + 1) % HOT_USES;
    }

    pub(super) fn is_hot(&self, now: Instant) -> bool {
        let counts = |at: &Instant| now.saturating_duration_since(*at) < HOT_FOR;
        self.uses.iter().all(|at| at.as_ref().is_some_and(counts))
    }

    /// How many handshakes to begin now; they count as begun.
    pub(super) fn begin(&mut self, idle: usize, now: Instant) -> usize {
        let rests = self.not_before.is_some_and(|until| now < until);
        if rests || !self.is_hot(now) {
            return 0;
        }
        let missing = READY.saturating_sub(idle + self.warming);
        let begun = missing.min(MOST_WARMING - self.warming);
        self.warming += begun;
        begun
    }

    /// One of them has come to its end.
    pub(super) fn ended(&mut self, is_good: bool, now: Instant) {
        self.warming = self.warming.saturating_sub(1);
        if is_good {
            self.failures = 0;
            self.not_before = None;
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(5)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(now + pause);
    }

    /// Whom it was wanted for, if it still is.
    pub(super) fn wanted(&self, now: Instant) -> Option<&Target> {
        self.target.as_ref().filter(|_| self.is_hot(now))
    }

    pub(super) fn is_remembered(&self, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < HOT_FOR;
        let rests = self.not_before.is_some_and(|until| now < until);
        self.warming > 0 || rests || self.uses.iter().flatten().any(recent)
    }
}

#[cfg(test)]
mod tests {
    use myelin_identity::verify::Expected;

    use super::*;
    use crate::addr::Endpoint;
    use crate::directory::Protocol;

    fn target() -> Target {
        Target {
            endpoint: Endpoint("10.0.0.1:80".parse().unwrap()),
            expected: Expected { ids: Vec::new(), address: None },
            protocol: Protocol::Myelin1,
            is_declared: false,
            max_uses: None,
        }
    }

    fn hot(now: Instant) -> Demand {
        let mut demand = Demand::default();
        (0..HOT_USES).for_each(|_| demand.used(&target(), now));
        demand
    }

    #[tokio::test(start_paused = true)]
    async fn one_use_is_no_habit_and_an_old_habit_is_none() {
        let now = Instant::now();
        let mut demand = Demand::default();
        demand.used(&target(), now);
        assert_eq!(demand.begin(0, now), 0);
        let mut demand = hot(now);
        assert_eq!(demand.begin(0, now + HOT_FOR), 0);
        assert!(demand.wanted(now).is_some() && demand.is_remembered(now));
        assert!(demand.wanted(now + HOT_FOR).is_none() && !demand.is_remembered(now + HOT_FOR));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hot_endpoint_gets_what_is_missing_and_no_more_at_once() {
        let now = Instant::now();
        assert_eq!(hot(now).begin(READY, now), 0);
        assert_eq!(hot(now).begin(READY - 1, now), 1);
        let mut demand = hot(now);
        assert_eq!(demand.begin(0, now), READY);
        assert_eq!(demand.begin(0, now), 0);
        demand.ended(true, now);
        assert_eq!(demand.begin(1, now), 0);
        assert_eq!(demand.begin(0, now), 1);
        assert!(demand.wanted(now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_endpoint_is_tried_ever_more_seldom_until_it_answers() {
        let mut now = Instant::now();
        let mut last = Duration::ZERO;
        let mut demand = Demand::default();
        for _ in 0..20 {
            (0..HOT_USES).for_each(|_| demand.used(&target(), now));
            assert!(demand.begin(READY - 1, now) == 1);
            demand.ended(false, now);
            assert_eq!(demand.begin(0, now), 0);
            let pause = demand.not_before.unwrap() - now;
            assert!(pause >= last && pause <= LONGEST_PAUSE);
            last = pause;
            now += pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
        (0..HOT_USES).for_each(|_| demand.used(&target(), now));
        assert_eq!(demand.begin(READY - 1, now), 1);
        demand.ended(true, now);
        assert!(demand.not_before.is_none() && demand.failures == 0);
    }
}
