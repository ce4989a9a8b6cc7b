//! Mesh connections that wait for their next use, so that a workload's connection costs neither a
//! handshake nor a TCP connection. One pool a worker, without a lock. Called by `mesh`, which takes
//! and gives back, and by `sweep`.
//!
//! Never: a borrow across an await; a decision about trust (that is `shelf`'s, by the moment's
//! snapshot).

// SPDX-License-Identifier: Apache-2.0

mod demand;
mod shelf;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::addr::Endpoint;
use crate::credentials::Snapshot;
use crate::directory::Target;
use crate::drain::Rest;
use crate::metrics::{MeshUse, Metrics, Retired};
use crate::relay::Link;
use crate::wire::{Dialer, Side};

pub(super) use shelf::Held;
use shelf::{Gone, Moment, Shelf, Warm};

/// A connection to one peer, with what it was made with.
pub(super) type Connection = Held<Link<Dialer>>;

/// See the module's header.
pub struct Pool {
    shelf: RefCell<Shelf<Link<Dialer>>>,
    metrics: Arc<Metrics>,
}

impl Pool {
    /// A connection lies here for at most `keep`.
    pub fn new(keep: Duration, metrics: Arc<Metrics>) -> Self {
        Self { shelf: RefCell::new(Shelf::new(keep)), metrics }
    }

    /// A connection that this use may have, judged by `snapshot` at `unix`.
    pub(super) fn take(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        unix: u64,
    ) -> Option<(Connection, MeshUse)> {
        let moment = moment(snapshot, unix);
        self.change(|shelf, gone| {
            let Target { endpoint, expected, .. } = target;
            let most = target.max_uses.map_or(u64::MAX, |most| u64::from(most.get()));
            let held = shelf.take(*endpoint, expected, most, &moment, gone)?;
            let kind = if held.link.uses() == 0 { MeshUse::Ready } else { MeshUse::Recycled };
            Some((held, kind))
        })
    }

    pub(super) fn put(&self, endpoint: Endpoint, held: Connection, rest: Rest) {
        self.change(|shelf, gone| shelf.put(endpoint, held, rest, Instant::now(), gone));
    }

    /// Counts a use, and says how many connections to make ready for the ones after it.
    pub(super) fn used(&self, target: &Target) -> usize {
        let (mut shelf, now) = (self.shelf.borrow_mut(), Instant::now());
        if let Some(demand) = shelf.demand(target.endpoint) {
            demand.used(target, now);
        }
        drop(shelf);
        self.begin(target, now)
    }

    /// A connection that was made ready, or was not.
    pub(super) fn warmed(&self, endpoint: Endpoint, made: Option<(Connection, Rest)>) {
        let now = Instant::now();
        if let Some(demand) = self.shelf.borrow_mut().demand(endpoint) {
            demand.ended(made.is_some(), now);
        }
        if let Some((held, rest)) = made {
            self.put(endpoint, held, rest);
        }
    }

    /// Drops what may not be used any more; says whom to make connections ready for, and how many.
    pub(super) fn sweep(&self, snapshot: Option<&Snapshot>, unix: u64) -> Vec<(Target, usize)> {
        let now = Instant::now();
        let moment = snapshot.map(|snapshot| moment(snapshot, unix));
        self.change(|shelf, gone| shelf.sweep(moment.as_ref(), now, gone));
        if moment.is_none() {
            return Vec::new();
        }
        let wanted = |(_, demand): (Endpoint, &demand::Demand)| demand.wanted(now).cloned();
        let wanted: Vec<Target> = self.shelf.borrow().endpoints().filter_map(wanted).collect();
        let begun = wanted.into_iter().map(|target| {
            let begun = self.begin(&target, now);
            (target, begun)
        });
        begun.filter(|(_, begun)| *begun > 0).collect()
    }

    /// One connection to this endpoint broke: whatever broke with it is not offered to anybody.
    pub(super) fn purge(&self, endpoint: Endpoint) {
        self.change(|shelf, gone| shelf.purge(endpoint, gone));
    }

    /// We are leaving: everything idle parts, and nothing is kept any more.
    pub(super) fn close(&self) {
        self.change(Shelf::close);
    }

    fn begin(&self, target: &Target, now: Instant) -> usize {
        let mut shelf = self.shelf.borrow_mut();
        // Where each use has a handshake of its own, one made ahead would be one too many.
        let is_single = target.max_uses.is_some_and(|most| most.get() == 1);
        if shelf.is_closed() || is_single {
            return 0;
        }
        let idle = shelf.idle_at(target.endpoint);
        shelf.demand(target.endpoint).map_or(0, |demand| demand.begin(idle, now))
    }

    /// Does something to the shelf, and parts in good order with whatever left it by that.
    fn change<R>(
        &self,
        work: impl FnOnce(&mut Shelf<Link<Dialer>>, &mut Gone<Link<Dialer>>) -> R,
    ) -> R {
        let mut gone = Vec::new();
        let mut shelf = self.shelf.borrow_mut();
        let before = shelf.count();
        let done = work(&mut shelf, &mut gone);
        self.metrics.mesh_idle(before, shelf.count());
        drop(shelf);
        for (link, why) in gone {
            self.metrics.mesh_retired(why);
            link.part();
        }
        done
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.metrics.mesh_idle(self.shelf.get_mut().count(), 0);
    }
}

impl Warm for Link<Dialer> {
    fn is_quiet(&mut self) -> bool {
        Self::is_quiet(self)
    }

    fn may_open(&self) -> bool {
        self.machine().may_open()
    }

    fn uses(&self) -> u64 {
        self.machine().course().last_use().value()
    }
}

/// Why a connection carries no further use after the one that it just carried.
pub(super) fn spent(held: &Connection, max_bytes: u64) -> Option<Retired> {
    let course = held.link.machine().course();
    if course.is_retiring() {
        Some(Retired::Peer)
    } else if course.bytes() >= max_bytes {
        Some(Retired::Bytes)
    } else if course.is_spent() {
        Some(Retired::Uses)
    } else if Instant::now() >= held.until {
        Some(Retired::Age)
    } else {
        None
    }
}

fn moment(snapshot: &Snapshot, unix: u64) -> Moment<'_> {
    Moment {
        generation: snapshot.generation,
        trust: snapshot.trust.view(),
        deny: &snapshot.deny,
        unix,
        now: Instant::now(),
    }
}
