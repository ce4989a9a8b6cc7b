//! Log lines that a caller can cause as often as he likes: one of each user now and then, with the
//! number of those that were left out. Used by whoever answers callers.
//!
//! Never: keeps a line for later (counters have them all), or lets one user silence the lines about
//! another, while there are not more than the table holds.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind: a reader keeps up with six a minute.
const PAUSE: Duration = Duration::from_secs(10);

/// Users that are told apart: a machine has a handful, and whoever makes up more (by user
/// namespaces) shares one line with the rest.
const MAX_USERS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Seldom {
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    each: HashMap<u32, State>,
    rest: State,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether this one of the user `uid` is to be logged, and how many were left out before it.
    pub(super) fn now(&self, uid: u32) -> Option<u64> {
        // A panic elsewhere leaves at worst a wrong number.
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.of(uid).now()
    }
}

impl Users {
    fn of(&mut self, uid: u32) -> &mut State {
        if self.each.len() >= MAX_USERS && !self.each.contains_key(&uid) {
            self.each.retain(|_, state| state.pauses());
            if self.each.len() >= MAX_USERS {
                return &mut self.rest;
            }
        }
        self.each.entry(uid).or_default()
    }
}

impl State {
    fn pauses(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < PAUSE)
    }

    fn now(&mut self) -> Option<u64> {
        if self.pauses() {
            self.left_out += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_and_a_number() {
        let seldom = Seldom::default();
        assert_eq!(seldom.now(7), Some(0));
        for _ in 0..100 {
            assert_eq!(seldom.now(7), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.now(7), Some(100));
        assert_eq!(seldom.now(7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_users_flood_silences_no_line_about_another() {
        let seldom = Seldom::default();
        for _ in 0..100 {
            seldom.now(7);
        }
        assert_eq!(seldom.now(8), Some(0));
        assert_eq!(seldom.now(8), None, "the twin: its own second one is left out");
    }

    #[tokio::test(start_paused = true)]
    async fn more_users_than_are_told_apart_share_one_line_until_others_rest() {
        let seldom = Seldom::default();
        let most = u32::try_from(MAX_USERS).unwrap();
        assert!((0..most).all(|uid| seldom.now(uid) == Some(0)));
        assert_eq!((seldom.now(most), seldom.now(most + 1)), (Some(0), None));
        assert_eq!(seldom.users.lock().unwrap().each.len(), MAX_USERS);
        tokio::time::advance(PAUSE).await;
        assert_eq!((seldom.now(most + 2), seldom.now(most + 3)), (Some(0), Some(0)));
        assert_eq!(seldom.users.lock().unwrap().each.len(), 2, "who rests makes room");
    }
}
