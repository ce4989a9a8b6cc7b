//! Who goes next when more want to than there are places: whoever renews before whoever is new, but
//! never alone. A sidecar without its renewal stops; one that joins only starts later. `listen` gives
//! turns to handshakes, `issue` to issues.
//!
//! Never: a queue without a bound (each who waits holds a connection's permit or a stream's), or
//! newcomers that wait for ever.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// While both kinds wait, one turn in so many goes to a newcomer.
const NEWCOMERS_SHARE: u32 = 8;
/// Whenever a line has grown by so many, those who have left it are taken out: what stands in it is
/// at most so many more than the permits and streams of those who wait.
const SWEPT_EVERY: usize = 1024;

/// Places, and the two lines before them. Clones are the same.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Lines>>);

struct Lines {
    free: usize,
    renewing: VecDeque<oneshot::Sender<Turn>>,
    new: VecDeque<oneshot::Sender<Turn>>,
    /// Turns since the last of a newcomer.
    since: u32,
}

/// A place; whoever drops it leaves it to the next.
pub(super) struct Turn {
    turns: Turns,
    /// It was handed on before it could be dropped.
    passed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Renewing,
    New,
}

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        let (renewing, new) = (VecDeque::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(Lines { free: places, renewing, new, since: 0 })))
    }

    /// Resolves when it is this one's turn. Whoever gives up before simply leaves the line.
    pub(super) async fn take(&self, who: Who) -> Turn {
        let waiting = {
            let mut lines = self.lines();
            if lines.free > 0 {
                lines.free -= 1;
                return Turn { turns: self.clone(), passed: false };
            }
            let (turn, waiting) = oneshot::channel();
            let line = match who {
                Who::Renewing => &mut lines.renewing,
                Who::New => &mut lines.new,
            };
            if line.len() % SWEPT_EVERY == SWEPT_EVERY - 1 {
                line.retain(|waiting| !waiting.is_closed());
            }
            line.push_back(turn);
            waiting
        };
        waiting.await.expect("the lines outlive whoever holds a place")
    }

    fn leave(&self) {
        let mut turn = Turn { turns: self.clone(), passed: false };
        loop {
            let next = {
                let mut lines = self.lines();
                let next = lines.next();
                if next.is_none() {
                    lines.free += 1;
                }
                next
            };
            let Some(next) = next else { break };
            match next.send(turn) {
                Ok(()) => return,
                // That one gave up: the next in line.
                Err(back) => turn = back,
            }
        }
        turn.passed = true;
    }

    // Nothing in here panics halfway: each change is one push, pop or count.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        // Whoever gave up takes nobody's turn.
        for line in [&mut self.renewing, &mut self.new] {
            while line.pop_front_if(|waiting| waiting.is_closed()).is_some() {}
        }
        let newcomers = self.since + 1 >= NEWCOMERS_SHARE || self.renewing.is_empty();
        if newcomers && let Some(next) = self.new.pop_front() {
            self.since = 0;
            return Some(next);
        }
        self.since += 1;
        self.renewing.pop_front()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.passed {
            self.passed = true;
            self.turns.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use tokio::task::JoinHandle;

    use super::*;

    /// One that waits, and by now stands in line.
    async fn waiting(turns: &Turns, who: Who) -> JoinHandle<Turn> {
        let turns = turns.clone();
        let waits = tokio::spawn(async move { turns.take(who).await });
        tokio::task::yield_now().await;
        waits
    }

    #[tokio::test]
    async fn whoever_renews_goes_before_whoever_is_new_and_one_in_eight_is_new() {
        let turns = Turns::new(1);
        let mut held = turns.take(Who::New).await;
        let mut line = Vec::new();
        for _ in 0..3 {
            line.push((Who::New, waiting(&turns, Who::New).await));
        }
        for _ in 0..20 {
            line.push((Who::Renewing, waiting(&turns, Who::Renewing).await));
        }
        let mut order = Vec::new();
        while !line.is_empty() {
            drop(held);
            tokio::task::yield_now().await;
            let at = line.iter().position(|(_, waits)| waits.is_finished()).unwrap();
            let (who, waits) = line.remove(at);
            order.push(who);
            held = waits.await.unwrap();
            assert!(line.iter().all(|(_, waits)| !waits.is_finished()), "one place, one turn");
        }
        let new: Vec<usize> =
            order.iter().enumerate().filter(|it| *it.1 == Who::New).map(|it| it.0).collect();
        assert_eq!(new, [7, 15, 22], "{order:?}");
    }

    #[tokio::test]
    async fn whoever_gave_up_is_passed_over_and_no_place_is_lost() {
        let turns = Turns::new(1);
        let held = turns.take(Who::Renewing).await;
        let gone = waiting(&turns, Who::Renewing).await;
        let next = waiting(&turns, Who::New).await;
        gone.abort();
        assert!(gone.await.is_err());
        drop(held);
        drop(next.await.unwrap());
        assert_eq!(turns.lines().free, 1);
        let all = [turns.take(Who::New).await];
        assert!(
            !waiting(&turns, Who::New).await.is_finished(),
            "the twin: there is one place only"
        );
        drop(all);
    }

    #[tokio::test]
    async fn newcomers_who_gave_up_take_no_newcomer_s_turn() {
        let turns = Turns::new(1);
        let mut held = turns.take(Who::New).await;
        for _ in 0..3 * SWEPT_EVERY {
            let gone = waiting(&turns, Who::New).await;
            gone.abort();
            assert!(gone.await.is_err());
        }
        assert!(turns.lines().new.len() <= SWEPT_EVERY, "{}", turns.lines().new.len());
        let newcomer = waiting(&turns, Who::New).await;
        let mut renewing = Vec::new();
        for _ in 0..20 {
            renewing.push(waiting(&turns, Who::Renewing).await);
        }
        for waits in renewing.into_iter().take(NEWCOMERS_SHARE as usize - 1) {
            drop(held);
            held = waits.await.unwrap();
            assert!(!newcomer.is_finished(), "the twin: who renews goes first");
        }
        drop(held);
        newcomer.await.unwrap();
    }

    #[tokio::test]
    async fn whoever_gives_up_with_the_turn_in_hand_leaves_it() {
        let turns = Turns::new(1);
        let held = turns.take(Who::Renewing).await;
        let mut first = Box::pin(turns.take(Who::New));
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(held);
        // It was sent the turn and is gone before it looked.
        drop(first);
        assert_eq!(turns.lines().free, 1);
    }
}
