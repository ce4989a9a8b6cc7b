//! The door: how many connections are inside, how many may be, and whether we are leaving. Called
//! by `inbound` and `outbound` at every accept and by `app` at the end.
//!
//! Never: waits for a place (a full house refuses at once), cuts a connection by itself.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How often the last ones out are looked for while draining; only then, so it costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How far the house is with closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// Open for everybody.
    Open,
    /// Who is inside may finish; nobody begins anything new.
    Leaving,
    /// The grace is over: whatever still runs is cut.
    Cut,
}

/// Counts who is inside and tells everybody when it is time to leave.
#[derive(Debug)]
pub struct Door {
    inside: AtomicUsize,
    resting: AtomicUsize,
    most: usize,
    most_resting: usize,
    closing: watch::Sender<Closing>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Door>);

/// An idle mesh connection's, given back when dropped: it takes nobody's place, so that a house
/// full of them still lets new connections in, and is waited for when we leave.
#[derive(Debug)]
pub struct Rest(Arc<Door>);

impl Door {
    /// `most` connections at once, and as many that rest.
    pub fn new(most: usize) -> Arc<Self> {
        Self::with_rest(most, most)
    }

    /// `most` connections at once, and `most_resting` mesh connections between two uses.
    pub fn with_rest(most: usize, most_resting: usize) -> Arc<Self> {
        Arc::new(Self {
            inside: AtomicUsize::new(0),
            resting: AtomicUsize::new(0),
            most,
            most_resting,
            closing: watch::Sender::new(Closing::Open),
        })
    }

    /// A place, or `None` when the house is full.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        if before >= self.most {
            self.inside.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }

    /// For a mesh connection between two uses. `None` if as many rest as may: such a connection
    /// ends instead. The next use asks for a place like anybody else.
    pub fn rest(self: &Arc<Self>) -> Option<Rest> {
        let before = self.resting.fetch_add(1, Ordering::Relaxed);
        if before >= self.most_resting {
            self.resting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Rest(Arc::clone(self)))
    }

    /// Tells everybody how far we are; there is no way back.
    pub fn close(&self, closing: Closing) {
        self.closing.send_if_modified(|now| std::mem::replace(now, closing.max(*now)) < closing);
    }

    pub fn is_leaving(&self) -> bool {
        *self.closing.borrow() >= Closing::Leaving
    }

    /// Returns when it has come this far.
    pub async fn closed(&self, closing: Closing) {
        let mut watch = self.closing.subscribe();
        // The sender is ours and outlives this call, so there is no error to meet.
        let _ = watch.wait_for(|now| *now >= closing).await;
    }

    /// How many may be inside at once.
    pub fn most(&self) -> usize {
        self.most
    }

    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Idle mesh connections.
    pub fn resting(&self) -> usize {
        self.resting.load(Ordering::Relaxed)
    }

    /// Waits until nobody is inside and nobody rests, for `at_most`; says how many are left inside.
    pub async fn emptied(&self, at_most: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + at_most;
        while self.inside() + self.resting() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.inside()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_refuses_and_a_freed_place_is_taken() {
        let door = Door::new(2);
        let first = door.enter();
        let second = door.enter();
        assert!(first.is_some() && second.is_some());
        assert!(door.enter().is_none());
        drop(first);
        assert!(door.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_takes_no_place_is_bounded_and_is_waited_for() {
        let door = Door::new(1);
        let rest = door.rest();
        assert!(rest.is_some() && door.rest().is_none());
        assert!(door.enter().is_some());
        let began = tokio::time::Instant::now();
        assert_eq!(door.emptied(Duration::from_secs(1)).await, 0);
        assert!(began.elapsed() >= Duration::from_secs(1), "it was not waited for");
        drop(rest);
        assert_eq!(door.resting(), 0);
        assert!(door.rest().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_the_last_one_but_not_for_ever() {
        let door = Door::new(8);
        let place = door.enter();
        door.close(Closing::Leaving);
        assert!(door.is_leaving());
        assert_eq!(door.emptied(Duration::from_secs(1)).await, 1);
        drop(place);
        assert_eq!(door.emptied(Duration::from_secs(1)).await, 0);
    }
}
