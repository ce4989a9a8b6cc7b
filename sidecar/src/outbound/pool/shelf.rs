//! The idle mesh connections of one worker, by endpoint, and the judgement of who may have one.
//! Pure: the moment is handed in, and what leaves the shelf is handed out with its reason. Called
//! by `Pool`.
//!
//! Never: hands out a connection of another credential generation, to a peer that is not expected
//! or not trusted at this moment, past its budget or age, or on which the peer has said anything.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::{DenyList, Trust};
use myelin_identity::verify::{Expected, Peer};
use rustls::pki_types::UnixTime;
use tokio::time::Instant;

use super::demand::Demand;
use crate::addr::Endpoint;
use crate::drain::Rest;
use crate::metrics::Retired;
use crate::proofs::Standing;

/// Idle connections to one endpoint: a burst of so many clients at once finds its connections
/// again, and what is surplus ages out from the far end.
pub(super) const MAX_IDLE_EACH: usize = 64;

/// Idle connections of one worker in all; each holds a descriptor and the buffers of a
/// TLS connection.
pub(super) const MAX_IDLE: usize = 512;

/// Endpoints whose demand is remembered: twice as many as could each have an idle connection.
pub(super) const MAX_ENDPOINTS: usize = 1_024;

/// What the shelf asks a connection; `Link<Dialer>` in the product.
pub(super) trait Warm {
    /// Nothing to read, and not closed.
    fn is_quiet(&mut self) -> bool;
    /// Whether its own budget allows another use.
    fn may_open(&self) -> bool;
    fn uses(&self) -> u64;
}

/// A connection, and what it was made with.
#[derive(Debug)]
pub(in crate::outbound) struct Held<L> {
    pub(in crate::outbound) link: L,
    pub(in crate::outbound) peer: Arc<Peer>,
    /// What its log proof came to.
    pub(in crate::outbound) standing: Standing,
    /// Our own credential generation at its handshake.
    pub(in crate::outbound) generation: u64,
    /// No use begins after this.
    pub(in crate::outbound) until: Instant,
}

/// What a connection is judged by: one snapshot, one reading of each clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub(super) generation: u64,
    pub(super) trust: Trust<'a>,
    pub(super) deny: &'a DenyList,
    /// Seconds since the Unix epoch.
    pub(super) unix: u64,
    pub(super) now: Instant,
}

/// What left the shelf for good, and why.
pub(super) type Gone<L> = Vec<(L, Retired)>;

#[derive(Debug)]
struct Idle<L> {
    held: Held<L>,
    since: Instant,
    /// What the drain waits for; it ends with the entry.
    _rest: Rest,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Spot<L> {
    /// The most recently used one last.
    idle: Vec<Idle<L>>,
    pub(super) demand: Demand,
}

#[derive(Debug)]
pub(super) struct Shelf<L> {
    spots: HashMap<Endpoint, Spot<L>>,
    /// How long a connection may lie here.
    keep: Duration,
    count: usize,
    closed: bool,
}

impl<L: Warm> Shelf<L> {
    pub(super) fn new(keep: Duration) -> Self {
        Self { spots: HashMap::new(), keep, count: 0, closed: false }
    }

    /// The most recently used connection that satisfies everything. What no longer may be used by
    /// anybody leaves on the way; one that only somebody else may use stays.
    pub(super) fn take(
        &mut self,
        endpoint: Endpoint,
        expected: &Expected,
        max_uses: u64,
        moment: &Moment<'_>,
        gone: &mut Gone<L>,
    ) -> Option<Held<L>> {
        let idle = &mut self.spots.get_mut(&endpoint)?.idle;
        for at in (0..idle.len()).rev() {
            let entry = &mut idle[at];
            if let Err(why) = standing(entry, moment, self.keep) {
                gone.push((idle.remove(at).held.link, why));
                self.count -= 1;
                continue;
            }
            let is_meant = expected.check(&entry.held.peer).is_ok();
            if !is_meant || entry.held.link.uses() >= max_uses {
                continue;
            }
            let taken = idle.remove(at);
            self.count -= 1;
            return Some(taken.held);
        }
        None
    }

    /// Lays a connection down. `rest` is its place among those that are waited for at the end.
    pub(super) fn put(
        &mut self,
        endpoint: Endpoint,
        held: Held<L>,
        rest: Rest,
        now: Instant,
        gone: &mut Gone<L>,
    ) {
        if self.closed {
            return gone.push((held.link, Retired::Drain));
        }
        let is_full = self.count >= MAX_IDLE;
        let Some(spot) = self.spot(endpoint).filter(|_| !is_full) else {
            return gone.push((held.link, Retired::Surplus));
        };
        let mut removed = 0;
        if spot.idle.len() >= MAX_IDLE_EACH {
            // The one that was not needed for the longest time.
            gone.push((spot.idle.remove(0).held.link, Retired::Surplus));
            removed = 1;
        }
        spot.idle.push(Idle { held, since: now, _rest: rest });
        self.count = self.count + 1 - removed;
    }

    /// Drops what may not be used any more, at whatever endpoint, and forgets endpoints that
    /// nobody uses. Without a moment there is no identity to use anything with.
    pub(super) fn sweep(&mut self, moment: Option<&Moment<'_>>, now: Instant, gone: &mut Gone<L>) {
        let keep = self.keep;
        let before = gone.len();
        for spot in self.spots.values_mut() {
            let unfit = spot.idle.extract_if(.., |entry| match moment {
                Some(moment) => standing(entry, moment, keep).is_err(),
                None => true,
            });
            for mut entry in unfit {
                let why = moment
                    .map_or(Err(Retired::Generation), |moment| standing(&mut entry, moment, keep));
                // It was judged a moment ago; only its peer can have changed its mind since.
                gone.push((entry.held.link, why.err().unwrap_or(Retired::Peer)));
            }
        }
        self.count -= gone.len() - before;
        self.spots.retain(|_, spot| !spot.idle.is_empty() || spot.demand.is_remembered(now));
    }

    /// After one connection to an endpoint broke: the others on which that shows already.
    pub(super) fn purge(&mut self, endpoint: Endpoint, gone: &mut Gone<L>) {
        let Some(spot) = self.spots.get_mut(&endpoint) else { return };
        for mut entry in std::mem::take(&mut spot.idle) {
            if entry.held.link.is_quiet() {
                spot.idle.push(entry);
            } else {
                gone.push((entry.held.link, Retired::Peer));
                self.count -= 1;
            }
        }
    }

    /// Empties the shelf, and takes nothing more.
    pub(super) fn close(&mut self, gone: &mut Gone<L>) {
        self.closed = true;
        self.count = 0;
        let spots = std::mem::take(&mut self.spots);
        let idle = spots.into_values().flat_map(|spot| spot.idle);
        gone.extend(idle.map(|entry| (entry.held.link, Retired::Drain)));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn idle_at(&self, endpoint: Endpoint) -> usize {
        self.spots.get(&endpoint).map_or(0, |spot| spot.idle.len())
    }

    /// How many lie here in all.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The endpoint's demand; `None` if too many endpoints are remembered already.
    pub(super) fn demand(&mut self, endpoint: Endpoint) -> Option<&mut Demand> {
        self.spot(endpoint).map(|spot| &mut spot.demand)
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (Endpoint, &Demand)> {
        self.spots.iter().map(|(endpoint, spot)| (*endpoint, &spot.demand))
    }

    fn spot(&mut self, endpoint: Endpoint) -> Option<&mut Spot<L>> {
        let is_full = self.spots.len() >= MAX_ENDPOINTS;
        if is_full && !self.spots.contains_key(&endpoint) {
            return None;
        }
        let fresh = || Spot { idle: Vec::new(), demand: Demand::default() };
        Some(self.spots.entry(endpoint).or_insert_with(fresh))
    }
}

/// May anybody use this connection at this moment? The question to the kernel comes last.
fn standing<L: Warm>(
    entry: &mut Idle<L>,
    moment: &Moment<'_>,
    keep: Duration,
) -> Result<(), Retired> {
    let held = &mut entry.held;
    if held.generation != moment.generation {
        return Err(Retired::Generation);
    }
    let at = UnixTime::since_unix_epoch(Duration::from_secs(moment.unix));
    if held.peer.still_trusted(moment.trust, moment.deny, at).is_err() {
        return Err(Retired::Trust);
    }
    if moment.now >= held.until {
        return Err(Retired::Age);
    }
    if moment.now.saturating_duration_since(entry.since) >= keep {
        return Err(Retired::Idle);
    }
    if !held.link.may_open() || !held.link.is_quiet() {
        return Err(Retired::Peer);
    }
    Ok(())
}
