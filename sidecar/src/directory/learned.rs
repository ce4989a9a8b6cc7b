//! What the CA's directory answered about the addresses that this workload dials: a bounded table
//! in immutable snapshots. Written by `credentials` (which swaps snapshots in an `ArcSwap`), read
//! by `Directory::route`.
//!
//! Never: asks, waits, forgets because the CA is gone, or turns an address that was meshed once
//! into one that takes plaintext.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use myelin_identity::id::SpiffeId;
use myelin_identity::verify::Expected;

use super::Protocol;

/// Addresses remembered, negative answers included: as many as the CA lets one stream watch.
pub const MAX_LEARNED: usize = 4_096;

/// An address and a port; `None` stands for every port.
pub type Place = (IpAddr, Option<u16>);

/// One answer of the CA's directory.
#[derive(Clone, Debug)]
pub struct Answer {
    pub place: Place,
    /// Who lives there; `None` if nobody with a live SVID does.
    pub resident: Option<(SpiffeId, Protocol)>,
}

/// What is known about one address and port.
#[derive(Debug)]
pub enum Known<'a> {
    /// Never asked, or forgotten for want of room.
    Nothing,
    /// The CA said that nobody of the mesh is there, and never said otherwise.
    NotMeshed,
    Meshed {
        expected: &'a Expected,
        protocol: &'a Protocol,
    },
    /// Was meshed, and the CA now says that nobody is there. Not a licence for plaintext: a lapsed
    /// SVID would be one otherwise.
    Withdrawn,
}

/// One immutable snapshot; `with` makes the next.
#[derive(Debug, Default)]
pub struct Learned {
    places: HashMap<Place, Arc<Entry>>,
    /// Places at each address that are meshed or were.
    meshed: HashMap<IpAddr, usize>,
    /// Counts snapshots: the unit in which use is remembered.
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Generation of the snapshot in which it was last looked up. The only thing that changes in
    /// a snapshot, and no answer depends on it.
    last_used: AtomicU64,
}

#[derive(Debug)]
enum State {
    NotMeshed,
    Meshed { expected: Expected, protocol: Protocol },
    Withdrawn,
}

impl Learned {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What is known about a destination. An answer for exactly this port precedes one for all.
    pub fn lookup(&self, address: IpAddr, port: u16) -> Known<'_> {
        let address = address.to_canonical();
        let exact = self.places.get(&(address, Some(port)));
        let all = self.places.get(&(address, None));
        let chosen = match (exact, all) {
            // "Nobody on this port" says less than "somebody on every port".
            (Some(exact), Some(all)) if matches!(exact.state, State::NotMeshed) => all,
            (Some(entry), _) | (None, Some(entry)) => entry,
            (None, None) => return Known::Nothing,
        };
        for entry in [exact, all].into_iter().flatten() {
            // Stored only when it changes: connections of one snapshot share the cache line.
            if entry.last_used.load(Ordering::Relaxed) != self.generation {
                entry.last_used.store(self.generation, Ordering::Relaxed);
            }
        }
        match &chosen.state {
            State::NotMeshed => Known::NotMeshed,
            State::Meshed { expected, protocol } => Known::Meshed { expected, protocol },
            State::Withdrawn => Known::Withdrawn,
        }
    }

    /// Whether the CA named anybody at this address, on whatever port.
    pub fn is_meshed(&self, address: IpAddr) -> bool {
        self.meshed.contains_key(&address.to_canonical())
    }

    /// The next snapshot, and the places that had to leave it: they need no watching any more.
    #[must_use]
    pub fn with(&self, answers: impl IntoIterator<Item = Answer>) -> (Self, Vec<Place>) {
        let mut next = Self {
            places: self.places.clone(),
            meshed: HashMap::new(),
            generation: self.generation + 1,
        };
        for Answer { place: (address, port), resident } in answers {
            next.insert((address.to_canonical(), port), resident);
        }
        let evicted = next.evict();
        for ((address, _), entry) in &next.places {
            if !matches!(entry.state, State::NotMeshed) {
                *next.meshed.entry(*address).or_default() += 1;
            }
        }
        (next, evicted)
    }

    fn insert(&mut self, place: Place, resident: Option<(SpiffeId, Protocol)>) {
        let before = self.places.get(&place).map(|entry| &entry.state);
        let state = match (resident, before) {
            (Some((id, protocol)), _) => {
                let expected = Expected { ids: vec![id], address: Some(place.0) };
                State::Meshed { expected, protocol }
            }
            (None, None | Some(State::NotMeshed)) => State::NotMeshed,
            (None, Some(State::Meshed { .. } | State::Withdrawn)) => State::Withdrawn,
        };
        let last_used = AtomicU64::new(self.generation);
        self.places.insert(place, Arc::new(Entry { state, last_used }));
    }

    /// Makes room: the longest-unused leave, negative answers before anything that was meshed,
    /// because forgetting a meshed address outside the mesh ranges would open it to plaintext.
    fn evict(&mut self) -> Vec<Place> {
        let surplus = self.places.len().saturating_sub(MAX_LEARNED);
        if surplus == 0 {
            return Vec::new();
        }
        let mut order: Vec<_> = self
            .places
            .iter()
            .map(|(place, entry)| {
                let meshed = !matches!(entry.state, State::NotMeshed);
                (meshed, entry.last_used.load(Ordering::Relaxed), *place)
            })
            .collect();
        order.sort_unstable();
        let evicted: Vec<Place> =
            order.into_iter().take(surplus).map(|(.., place)| place).collect();
        for place in &evicted {
            self.places.remove(place);
        }
        evicted
    }
}
