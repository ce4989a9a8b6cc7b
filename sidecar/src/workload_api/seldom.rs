//! Log lines that a caller can cause as often as he likes: one now and then, with the number of
//! those that were left out. Used by whoever answers callers.
//!
//! Never: keeps a line for later; counters have them all.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind: a reader keeps up with six a minute.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Seldom {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether this one is to be logged, and how many were left out before it.
    pub(super) fn now(&self) -> Option<u64> {
        // A panic elsewhere leaves at worst a wrong number.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < PAUSE) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_and_a_number() {
        let seldom = Seldom::default();
        assert_eq!(seldom.now(), Some(0));
        for _ in 0..100 {
            assert_eq!(seldom.now(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.now(), Some(100));
        assert_eq!(seldom.now(), None);
    }
}
