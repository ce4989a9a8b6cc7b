//! What the controller said of services that this workload dials: a bounded table in immutable
//! snapshots, and the choice among a service's endpoints. Written by `services` (which swaps
//! snapshots in an `ArcSwap`), read by `Directory::route`.
//!
//! Never: asks, waits, reads a clock, forgets because the controller is gone, or makes an endpoint
//! of anything that has no identity.

// SPDX-License-Identifier: Apache-2.0

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use myelin_identity::id::SpiffeId;
use myelin_identity::services::{EndpointView, ServiceVersion, ServiceView};
use myelin_identity::verify::Expected;
use tokio::time::Instant;

use super::{Protocol, Target};
use crate::addr::Endpoint;

/// Addresses and ports remembered, those that are no service's included: fewer than one stream may ask
/// about, so that there is room for what is on its way.
pub const MAX_PLACES: usize = 4_096;
/// Endpoints of all services together, some 200 bytes each.
const MAX_ENDPOINTS_HELD: usize = 32_768;
/// The rest after a first failure to reach an endpoint; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// No rest is longer, so that an endpoint that is back gets its share soon.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Doublings after which a rest is the longest.
const MOST_DOUBLINGS: u32 = 5;

/// One immutable snapshot; `with` makes the next.
#[derive(Debug)]
pub struct Services {
    places: HashMap<SocketAddr, Arc<Entry>>,
    /// Counts snapshots: the unit in which use is remembered.
    generation: u64,
    /// From which moments are counted.
    since: Instant,
    /// Two sidecars that start together do not choose alike.
    seed: u64,
}

/// One answer of the controller.
#[derive(Clone, Debug)]
pub struct Told {
    pub place: SocketAddr,
    /// `None`: no service.
    pub service: Option<(ServiceVersion, ServiceView)>,
    /// Where we are ourselves.
    pub zone: Option<String>,
}

/// What is known about one address and port.
#[derive(Debug)]
pub enum Found<'a> {
    /// Never asked, or forgotten for want of room.
    Nothing,
    NotAService,
    Service(&'a KnownService),
}

#[derive(Debug)]
struct Entry {
    service: Option<KnownService>,
    /// Generation of the snapshot in which it was last looked up; no answer depends on it.
    last_used: AtomicU64,
}

/// A service and its endpoints: those of our zone first, then the others, then those that are about
/// to go.
#[derive(Debug)]
pub struct KnownService {
    pub name: Arc<str>,
    pub version: ServiceVersion,
    /// Endpoints that have no identity of the mesh.
    pub unmeshed: u32,
    /// Where we were when the endpoints were put in their order.
    zone: Option<Box<str>>,
    spots: Vec<Arc<Spot>>,
    near: usize,
    ready: usize,
}

/// One endpoint; what happens there is remembered from one snapshot to the next.
#[derive(Debug)]
pub struct Spot {
    address: Endpoint,
    id: SpiffeId,
    /// Uses of ours that are under way.
    running: AtomicU32,
    /// Times in a row that it could not be reached.
    failures: AtomicU32,
    /// Milliseconds since the table began; it is left alone until then.
    rests_until: AtomicU64,
}

/// One use of an endpoint, counted as long as it lasts.
#[derive(Debug)]
pub struct Running(Arc<Spot>);

impl Running {
    pub fn new(spot: Arc<Spot>) -> Self {
        spot.running.fetch_add(1, Ordering::Relaxed);
        Self(spot)
    }

    pub fn spot(&self) -> &Spot {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spot {
    fn new(address: Endpoint, id: SpiffeId) -> Arc<Self> {
        let (running, failures) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { address, id, running, failures, rests_until: AtomicU64::new(0) })
    }

    /// Whom to dial and whom to find there: this endpoint's identity, bound to its address.
    pub fn target(&self) -> Target {
        Target {
            endpoint: self.address,
            expected: Expected { ids: vec![self.id.clone()], address: Some(self.address.ip()) },
            protocol: Protocol::Myelin1,
            is_declared: false,
            max_uses: None,
        }
    }

    /// Somebody was reached there.
    pub fn reached(&self) {
        // Stored only when it changes: uses of one endpoint share the cache line.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }

    fn load(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    fn rests(&self, now: u64) -> bool {
        self.rests_until.load(Ordering::Relaxed) > now
    }
}

impl Services {
    pub fn new(since: Instant, seed: u64) -> Self {
        Self { places: HashMap::new(), generation: 0, since, seed }
    }

    /// What is known about a destination, whose address is canonical.
    pub fn lookup(&self, place: SocketAddr) -> Found<'_> {
        let Some(entry) = self.places.get(&place) else { return Found::Nothing };
        if entry.last_used.load(Ordering::Relaxed) != self.generation {
            entry.last_used.store(self.generation, Ordering::Relaxed);
        }
        entry.service.as_ref().map_or(Found::NotAService, Found::Service)
    }

    /// The state that is held of a service.
    pub fn version(&self, place: SocketAddr) -> Option<ServiceVersion> {
        Some(self.places.get(&place)?.service.as_ref()?.version)
    }

    /// Where we were when this service was told of.
    pub fn zone(&self, place: SocketAddr) -> Option<&str> {
        self.places.get(&place)?.service.as_ref()?.zone.as_deref()
    }

    /// The endpoint for the next use of a service; `turn` differs from use to use.
    pub fn choose<'s>(
        &self,
        service: &'s KnownService,
        turn: u32,
        now: Instant,
    ) -> Option<&'s Arc<Spot>> {
        service.choose(mixed(self.seed ^ u64::from(turn)), self.moment(now))
    }

    /// Nobody was reached at this endpoint: it is left alone for a while.
    pub fn unreached(&self, spot: &Spot, now: Instant) {
        let failures = spot.failures.fetch_add(1, Ordering::Relaxed);
        let rest = FIRST_REST.saturating_mul(1 << failures.min(MOST_DOUBLINGS)).min(LONGEST_REST);
        spot.rests_until.store(self.moment(now + rest), Ordering::Relaxed);
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The next snapshot, and the places that had to leave it: they need no watching any more.
    #[must_use]
    pub fn with(&self, told: Told) -> (Self, Vec<SocketAddr>) {
        let mut next = Self {
            places: self.places.clone(),
            generation: self.generation + 1,
            since: self.since,
            seed: self.seed,
        };
        let before = self.places.get(&told.place).and_then(|entry| entry.service.as_ref());
        let service = told
            .service
            .map(|(version, view)| KnownService::new(version, &view, told.zone.as_deref(), before));
        let last_used = AtomicU64::new(next.generation);
        next.places.insert(told.place, Arc::new(Entry { service, last_used }));
        let evicted = next.evict();
        (next, evicted)
    }

    /// Makes room: the longest unused leave.
    fn evict(&mut self) -> Vec<SocketAddr> {
        let held = |entry: &Entry| entry.service.as_ref().map_or(0, |it| it.spots.len());
        let mut endpoints: usize = self.places.values().map(|entry| held(entry)).sum();
        if self.places.len() <= MAX_PLACES && endpoints <= MAX_ENDPOINTS_HELD {
            return Vec::new();
        }
        let mut order: Vec<(u64, SocketAddr)> = self
            .places
            .iter()
            .map(|(place, entry)| (entry.last_used.load(Ordering::Relaxed), *place))
            .collect();
        order.sort_unstable();
        let mut evicted = Vec::new();
        for (_, place) in order {
            // The newest is what somebody waits for.
            let fits = self.places.len() <= MAX_PLACES && endpoints <= MAX_ENDPOINTS_HELD;
            if fits || self.places.len() == 1 {
                break;
            }
            endpoints -= self.places.remove(&place).map_or(0, |entry| held(&entry));
            evicted.push(place);
        }
        evicted
    }

    fn moment(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.since);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }
}

impl KnownService {
    fn new(
        version: ServiceVersion,
        view: &ServiceView,
        zone: Option<&str>,
        before: Option<&Self>,
    ) -> Self {
        let old: HashMap<SocketAddr, &Arc<Spot>> = before
            .into_iter()
            .flat_map(|service| &service.spots)
            .map(|spot| (spot.address.0, spot))
            .collect();
        let is_near = |it: &EndpointView| zone.is_some() && it.zone.as_deref() == zone;
        let rank = |it: &EndpointView| match it {
            it if it.terminating => 2,
            it if is_near(it) => 0,
            _ => 1_u8,
        };
        let mut ranked: Vec<(u8, &EndpointView)> =
            view.endpoints.iter().map(|it| (rank(it), it)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let up_to = |most: u8| ranked.iter().filter(|(rank, _)| *rank <= most).count();
        let (near, ready) = (up_to(0), up_to(1));
        let spots = ranked.into_iter().map(|(_, it)| {
            let address = Endpoint::canonical(it.address);
            match old.get(&address.0).filter(|spot| spot.id == it.id) {
                Some(spot) => Arc::clone(spot),
                None => Spot::new(address, it.id.clone()),
            }
        });
        let (name, unmeshed) = (view.name.as_str().into(), view.unmeshed);
        let zone = zone.map(Into::into);
        Self { name, version, unmeshed, zone, spots: spots.collect(), near, ready }
    }

    /// The least loaded of two: in our zone, else elsewhere; one that rests only if all do, one that
    /// is about to go only if nothing else is there.
    fn choose(&self, draw: u64, now: u64) -> Option<&Arc<Spot>> {
        let awake = |spot: &Spot| !spot.rests(now);
        self.of_two(0..self.near, draw, awake)
            .or_else(|| self.of_two(self.near..self.ready, draw, awake))
            .or_else(|| self.of_two(0..self.ready, draw, |_| true))
            .or_else(|| self.of_two(self.ready..self.spots.len(), draw, awake))
            .or_else(|| self.of_two(self.ready..self.spots.len(), draw, |_| true))
    }

    fn of_two(
        &self,
        range: Range<usize>,
        draw: u64,
        fits: impl Fn(&Spot) -> bool,
    ) -> Option<&Arc<Spot>> {
        let spots = &self.spots[range];
        let count = u64::try_from(spots.len()).ok().filter(|count| *count > 0)?;
        let at = |number: u64| usize::try_from(number % count).unwrap_or(0);
        // The first fitting one from each of two places on.
        let from = |start: usize| {
            let (before, after) = spots.split_at(start);
            after.iter().chain(before).filter(|spot| fits(spot))
        };
        let one = from(at(draw)).next()?;
        let other = from(at(draw >> 32)).find(|other| !Arc::ptr_eq(one, other));
        Some(other.filter(|other| other.load() < one.load()).unwrap_or(one))
    }
}

/// Neighbouring numbers become unlike ones (SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
