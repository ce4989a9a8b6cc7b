//! How long the SVIDs of one replica may live, as it says before it issues any: now, and under the
//! settings that it had earlier. Written by `authority` at its start; the root ladder asks it until
//! when something that was issued before an instant may be in use.
//!
//! Never: shortened by a setting before the last SVID of the longer one has ended.

// SPDX-License-Identifier: Apache-2.0

use serde::{Deserialize, Serialize};

use super::Record;
use crate::clock::UnixSeconds;

/// `name`: the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivesRecord {
    /// The longest life that it gives now, in seconds.
    pub longest: u64,
    /// The longest that it gave under settings of before, as far as anything of that may be in use.
    pub earlier: u64,
    /// By when all of that has ended.
    pub earlier_end: UnixSeconds,
}

impl Record for LivesRecord {
    const PREFIX: &'static str = "lives/";
}

impl LivesRecord {
    /// Of a replica that never gave another life than this.
    pub fn new(longest: u64) -> Self {
        Self { longest, earlier: 0, earlier_end: 0 }
    }

    /// From `now` on it gives another.
    pub fn changed(self, longest: u64, now: UnixSeconds) -> Self {
        if longest == self.longest {
            return self;
        }
        let before = if self.earlier_end > now { self.earlier } else { 0 };
        Self {
            longest,
            earlier: before.max(self.longest),
            earlier_end: self.earlier_end.max(now.saturating_add(self.longest)),
        }
    }

    /// By when everything has ended that it issued before `since`.
    pub fn end_of_what_was_issued_before(&self, since: UnixSeconds) -> UnixSeconds {
        let earlier = since.saturating_add(self.earlier).min(self.earlier_end);
        since.saturating_add(self.longest).max(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_life_counts_for_what_is_issued_from_then_on_only() {
        let day = LivesRecord::new(1_000);
        let shortened = day.changed(10, 5_000);
        let thrice = shortened.changed(500, 5_100).changed(10, 5_200);
        let grown = LivesRecord::new(10).changed(1_000, 5_000);
        for (lives, since, expected) in [
            (day, 5_000, 6_000),
            // Of before the change: some of it may live as long as it was given.
            (shortened, 4_000, 5_000),
            (shortened, 5_500, 6_000),
            (shortened, 5_995, 6_005),
            // All of that has ended.
            (shortened, 7_000, 7_010),
            (thrice, 5_300, 6_000),
            (grown, 5_001, 6_001),
        ] {
            let end = lives.end_of_what_was_issued_before(since);
            assert_eq!(end, expected, "{lives:?} before {since}");
        }
        assert_eq!(shortened.changed(10, 5_500), shortened, "the same setting again");
        let much_later = shortened.changed(20, 9_000);
        assert_eq!((much_later.earlier, much_later.earlier_end), (10, 9_010), "forgotten");
    }
}
