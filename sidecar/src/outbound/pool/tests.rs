//! The shelf against a model of what may be used: random lives of a pool, in which everything that
//! a connection was made with changes under it.
//!
//! Never: a socket; the oracle judges by plain sets and numbers, not by the code it checks.

// SPDX-License-Identifier: Apache-2.0

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use myelin_identity::bundle::{DenyEntry, DenyList, DenySubject, TrustBundle};
use myelin_identity::id::SpiffeId;
use myelin_identity::verify::{self, Expected, Peer, Role};
use proptest::prelude::*;

use super::shelf::{Held, MAX_IDLE, MAX_IDLE_EACH, Moment, Shelf, Warm};
use super::*;
use crate::drain::Door;
use crate::outbound::reach::at;
use crate::proofs::Standing;
use crate::testing::{Authority, NOW};

const KEEP: Duration = Duration::from_secs(30);
const IDS: [&str; 2] =
    ["spiffe://test.example/ns/shop/sa/web", "spiffe://test.example/ns/shop/sa/db"];

/// Somebody who answered once: who, under which root, until when.
struct Known {
    peer: Peer,
    id: usize,
    root: usize,
    until: u64,
}

struct World {
    /// By the set of roots that they hold: bit 0 is the first root, bit 1 the second.
    bundles: [Arc<TrustBundle>; 4],
    known: Vec<Known>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let roots = [Authority::new("one"), Authority::new("two")];
    let mut known = Vec::new();
    for (root, authority) in roots.iter().enumerate() {
        for (number, id) in IDS.iter().enumerate() {
            for until in [NOW + 50, NOW + 3_600] {
                let chain = authority.issue_until(id, &[], until).chain;
                let peer = verify::peer(&chain, &authority.bundle(), at(NOW), Role::Server);
                known.push(Known { peer: peer.unwrap(), id: number, root, until });
            }
        }
    }
    let both = Authority::bundle_of(&[&roots[0], &roots[1]]);
    let nobody = Authority::new("three").bundle();
    World { bundles: [nobody, roots[0].bundle(), roots[1].bundle(), both], known }
});

fn id(number: usize) -> SpiffeId {
    SpiffeId::parse(IDS[number]).unwrap()
}

fn endpoint(number: usize) -> Endpoint {
    Endpoint(format!("10.0.0.{}:80", number + 1).parse().unwrap())
}

#[derive(Clone, Debug)]
struct Fake {
    name: usize,
    uses: u64,
    budget: u64,
    quiet: Rc<Cell<bool>>,
}

impl Warm for Fake {
    fn is_quiet(&mut self) -> bool {
        self.quiet.get()
    }

    fn may_open(&self) -> bool {
        self.uses < self.budget
    }

    fn uses(&self) -> u64 {
        self.uses
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// A connection comes to rest: to whom, from how many credential generations ago, how good.
    Put {
        at: usize,
        who: usize,
        behind: u64,
        fake: (u64, u64, bool),
        age: u64,
    },
    /// A use wants one, expecting one of these IDs.
    Take {
        at: usize,
        expects: u8,
        max_uses: u64,
    },
    Renewed,
    Denied(usize),
    Allowed,
    Trusts(usize),
    Passes(u64),
    /// The peer of one that lies there retires it, or closes it.
    Speaks(usize),
    Swept,
    Purged(usize),
    Closed,
}

fn act() -> impl Strategy<Value = Act> {
    let fake = (0..4_u64, prop_oneof![Just(3_u64), Just(1_000)], prop::bool::weighted(0.9));
    let behind = prop_oneof![9 => Just(0_u64), 1 => 1..3_u64];
    prop_oneof![
        12 => (0..2_usize, 0..8_usize, behind, fake, 5..600_u64)
            .prop_map(|(at, who, behind, fake, age)| Act::Put { at, who, behind, fake, age }),
        12 => (0..2_usize, 0..4_u8, prop_oneof![Just(1_u64), Just(u64::MAX)])
            .prop_map(|(at, expects, max_uses)| Act::Take { at, expects, max_uses }),
        1 => Just(Act::Renewed),
        1 => (0..2_usize).prop_map(Act::Denied),
        1 => Just(Act::Allowed),
        2 => (0..4_usize).prop_map(Act::Trusts),
        4 => (0..25_u64).prop_map(Act::Passes),
        2 => (0..64_usize).prop_map(Act::Speaks),
        1 => Just(Act::Swept),
        1 => (0..2_usize).prop_map(Act::Purged),
        1 => prop::bool::weighted(0.1).prop_map(|ends| if ends { Act::Closed } else { Act::Swept }),
    ]
}

/// What the oracle remembers of one connection that came to rest.
#[derive(Clone, Debug)]
struct Lying {
    at: usize,
    who: usize,
    generation: u64,
    fake: Fake,
    since: Instant,
    until: Instant,
}

struct Life {
    shelf: Shelf<Fake>,
    door: Arc<Door>,
    /// In the order in which they came to rest.
    lying: Vec<Lying>,
    lost: BTreeSet<usize>,
    names: usize,
    generation: u64,
    denied: BTreeSet<usize>,
    trusts: usize,
    unix: u64,
    now: Instant,
    closed: bool,
}

impl Life {
    fn new() -> Self {
        Self {
            shelf: Shelf::new(KEEP),
            door: Door::new(10_000),
            lying: Vec::new(),
            lost: BTreeSet::new(),
            names: 0,
            generation: 5,
            denied: BTreeSet::new(),
            trusts: 3,
            unix: NOW,
            now: Instant::now(),
            closed: false,
        }
    }

    /// By plain numbers and sets: may anybody use it?
    fn stands(&self, lying: &Lying) -> bool {
        let known = &WORLD.known[lying.who];
        lying.generation == self.generation
            && self.trusts & (1 << known.root) != 0
            && self.unix <= known.until
            && !self.denied.contains(&known.id)
            && self.now < lying.until
            && self.now - lying.since < KEEP
            && lying.fake.uses < lying.fake.budget
            && lying.fake.quiet.get()
    }

    fn play(&mut self, act: Act) -> Result<(), TestCaseError> {
        match act {
            Act::Put { at, who, behind, fake, age } => self.put(at, who, behind, fake, age),
            Act::Take { at, expects, max_uses } => self.take(at, expects, max_uses)?,
            Act::Renewed => self.generation += 1,
            Act::Denied(id) => self.denied.extend([id]),
            Act::Allowed => self.denied.clear(),
            Act::Trusts(roots) => self.trusts = roots,
            Act::Passes(seconds) => {
                self.unix += seconds;
                self.now += Duration::from_secs(seconds);
            }
            Act::Speaks(number) => {
                if let Some(lying) = self.lying.get(number % self.lying.len().max(1)) {
                    lying.fake.quiet.set(false);
                }
            }
            Act::Swept => self.sweep()?,
            Act::Purged(at) => {
                let mut gone = Vec::new();
                self.shelf.purge(endpoint(at), &mut gone);
                prop_assert!(gone.iter().all(|(fake, _)| !fake.quiet.get()));
                self.lose(&gone);
                prop_assert!(
                    self.lying.iter().all(|lying| lying.at != at || lying.fake.quiet.get())
                );
            }
            Act::Closed => {
                let mut gone = Vec::new();
                self.shelf.close(&mut gone);
                self.lose(&gone);
                self.closed = true;
            }
        }
        prop_assert_eq!(self.shelf.count(), self.lying.len());
        prop_assert_eq!(self.door.resting(), self.lying.len());
        let here = (0..2).map(|number| self.shelf.idle_at(endpoint(number))).sum::<usize>();
        prop_assert_eq!(here, self.lying.len());
        Ok(())
    }

    fn put(&mut self, at: usize, who: usize, behind: u64, fake: (u64, u64, bool), age: u64) {
        let (uses, budget, quiet) = fake;
        let fake = Fake { name: self.names, uses, budget, quiet: Rc::new(Cell::new(quiet)) };
        self.names += 1;
        let until = self.now + Duration::from_secs(age);
        let (generation, peer) =
            (self.generation - behind, Arc::new(WORLD.known[who].peer.clone()));
        let standing = Standing::NoLog;
        let held = Held { link: fake.clone(), peer, standing, generation, until };
        let (rest, mut gone) = (self.door.rest().unwrap(), Vec::new());
        self.lying.push(Lying { at, who, generation, fake, since: self.now, until });
        self.shelf.put(endpoint(at), held, rest, self.now, &mut gone);
        self.lose(&gone);
    }

    fn take(&mut self, at: usize, expects: u8, max_uses: u64) -> Result<(), TestCaseError> {
        let expected: Vec<usize> = (0..2).filter(|id| expects & (1 << id) != 0).collect();
        let fits = |lying: &&Lying| {
            lying.at == at
                && self.stands(lying)
                && expected.contains(&WORLD.known[lying.who].id)
                && lying.fake.uses < max_uses
        };
        let want = self.lying.iter().rev().find(fits).map(|lying| lying.fake.name);
        let ids = expected.iter().copied().map(id).collect();
        let deny = self.deny();
        let moment = self.moment(&deny);
        let mut gone = Vec::new();
        let expected = Expected { ids, address: None };
        let held = self.shelf.take(endpoint(at), &expected, max_uses, &moment, &mut gone);
        self.lose(&gone);
        // Exactly the most recent one that fits: nothing unfit is handed out, nothing fit withheld.
        prop_assert_eq!(held.as_ref().map(|held| held.link.name), want);
        if let Some(held) = held {
            prop_assert_eq!(held.generation, self.generation);
            prop_assert!(expected.ids.contains(&held.peer.id), "crossed an identity");
            prop_assert!(!self.lost.contains(&held.link.name), "came back");
            self.lying.retain(|lying| lying.fake.name != held.link.name);
        }
        Ok(())
    }

    fn sweep(&mut self) -> Result<(), TestCaseError> {
        let deny = self.deny();
        let moment = self.moment(&deny);
        let mut gone = Vec::new();
        self.shelf.sweep(Some(&moment), self.now, &mut gone);
        self.lose(&gone);
        prop_assert!(self.lying.iter().all(|lying| self.stands(lying)), "something unfit stayed");
        Ok(())
    }

    /// What left must have been unfit, surplus, or there when everything ended.
    fn lose(&mut self, gone: &Gone<Fake>) {
        for (fake, why) in gone {
            let place = self.lying.iter().position(|lying| lying.fake.name == fake.name).unwrap();
            let lying = self.lying.remove(place);
            let named = matches!(why, Retired::Drain | Retired::Surplus);
            assert!(named || !self.stands(&lying), "{why:?}: {lying:?} was fit");
            self.lost.insert(fake.name);
        }
    }

    fn deny(&self) -> DenyList {
        let entry =
            |number: &usize| DenyEntry { subject: DenySubject::Id(id(*number)), until: u64::MAX };
        DenyList::new(1, NOW, self.denied.iter().map(entry)).unwrap()
    }

    fn moment<'a>(&self, deny: &'a DenyList) -> Moment<'a> {
        Moment {
            generation: self.generation,
            trust: (&WORLD.bundles[self.trusts]).into(),
            deny,
            unix: self.unix,
            now: self.now,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_warm_connection_never_crosses_identities_generations_or_policy_changes(
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut life = Life::new();
        for act in acts {
            life.play(act)?;
        }
        if life.closed {
            prop_assert!(life.lying.is_empty(), "a closed pool holds something");
        }
    }
}

#[test]
fn the_pool_is_bounded_at_each_endpoint_and_in_all() {
    let mut life = Life::new();
    for _ in 0..MAX_IDLE_EACH + 3 {
        life.put(0, 1, 0, (0, 1_000, true), 600);
    }
    assert_eq!(life.shelf.idle_at(endpoint(0)), MAX_IDLE_EACH);
    // The ones that were not needed for the longest time went.
    assert_eq!(life.lost, (0..3).collect());
    for number in 0..2 * MAX_IDLE {
        life.put(number / (MAX_IDLE_EACH / 2), 1, 0, (0, 1_000, true), 600);
    }
    assert_eq!(life.shelf.count(), MAX_IDLE);
    assert_eq!(life.door.resting(), MAX_IDLE);
}

#[test]
fn each_reason_to_retire_has_its_word() {
    let retired = |change: fn(&mut Life), fake: (u64, u64, bool)| {
        let mut life = Life::new();
        life.put(0, 0, 0, fake, 40);
        change(&mut life);
        let (deny, mut gone) = (life.deny(), Vec::new());
        let moment = life.moment(&deny);
        life.shelf.sweep(Some(&moment), life.now, &mut gone);
        gone.first().map(|(_, why)| *why)
    };
    let good = (1, 1_000, true);
    assert_eq!(retired(|_| (), good), None);
    assert_eq!(retired(|life| life.generation += 1, good), Some(Retired::Generation));
    assert_eq!(retired(|life| life.trusts = 2, good), Some(Retired::Trust));
    assert_eq!(retired(|life| life.denied.extend([0]), good), Some(Retired::Trust));
    assert_eq!(retired(|life| life.unix += 51, good), Some(Retired::Trust));
    assert_eq!(retired(|life| life.now += KEEP, good), Some(Retired::Idle));
    assert_eq!(retired(|life| life.now += 2 * KEEP, good), Some(Retired::Age));
    assert_eq!(retired(|_| (), (1, 1_000, false)), Some(Retired::Peer));
}

#[test]
fn without_an_identity_nothing_is_kept() {
    let mut life = Life::new();
    life.put(0, 0, 0, (1, 1_000, true), 600);
    let mut gone = Vec::new();
    life.shelf.sweep(None, life.now, &mut gone);
    assert!(matches!(&gone[..], [(_, Retired::Generation)]));
    assert_eq!(life.shelf.count(), 0);
}
