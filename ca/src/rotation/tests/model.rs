//! A model of a mesh under rotation: replicas that lag, sidecars that hear late, lose replies, renew,
//! sleep and die, a clock that jumps, lives that are set shorter, a CA that forgets what it has not written. Whatever the order,
//! as long as nobody forces anything: at every instant each live sidecar can verify each other one,
//! and no live SVID chains to a root that was retired.
//!
//! Never: certificates; roots are numbers here. The moves on real keys are in the files beside this.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use myelin_identity::bundle::Rung;
use proptest::prelude::*;

use super::super::ladder::*;
use crate::journal::LivesRecord;

/// Lives that a replica may be started with, in seconds.
const LIVES: [u64; 2] = [100, 7];
const SIDECARS: usize = 4;
const REPLICAS: usize = 2;

#[derive(Clone, Debug)]
enum Event {
    Move(Move),
    /// The sidecar gets the present bundle, and says so.
    Hear(usize),
    /// It gets the bundle, and its acknowledgement is lost.
    HearSilently(usize),
    /// It renews at a replica; the reply may be lost.
    Renew(usize, usize, bool),
    /// The replica makes its intermediate under the active root.
    CatchUp(usize),
    /// The CA dies: acknowledgements that were not written are gone.
    Crash,
    Clock(u64),
    /// The replica starts anew, and gives other lives from then on.
    Lives(usize, u64),
}

#[derive(Clone, Copy, Debug)]
struct Svid {
    root: u64,
    not_after: u64,
}

#[derive(Clone, Debug)]
struct Sidecar {
    generation: u64,
    bundle: BTreeSet<u64>,
    /// What it uses, and what the CA issued last.
    used: Svid,
    issued: Svid,
    /// Generation and root of the last acknowledgement that the CA has.
    acked: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Mesh {
    now: u64,
    rung: Rung,
    since: u64,
    generation: u64,
    active: u64,
    roots: BTreeSet<u64>,
    made: u64,
    signers: [u64; REPLICAS],
    lives: [LivesRecord; REPLICAS],
    sidecars: Vec<Sidecar>,
    moves: usize,
}

impl Mesh {
    fn new() -> Self {
        let svid = Svid { root: 1, not_after: LIVES[0] };
        let bundle = BTreeSet::from([1]);
        let (generation, acked) = (1, None);
        let sidecar =
            Sidecar { generation, bundle: bundle.clone(), used: svid, issued: svid, acked };
        Self {
            now: 0,
            rung: Rung::Settled,
            since: 0,
            generation,
            active: 1,
            roots: bundle,
            made: 1,
            signers: [1; REPLICAS],
            lives: [LivesRecord::new(LIVES[0]); REPLICAS],
            sidecars: vec![sidecar; SIDECARS],
            moves: 0,
        }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Move(asked) => self.moves(asked),
            Event::Hear(who) => self.hears(who, true),
            Event::HearSilently(who) => self.hears(who, false),
            Event::Renew(who, replica, lost) => self.renews(who, replica, lost),
            Event::CatchUp(replica) => self.signers[replica] = self.active,
            Event::Crash => self.sidecars.iter_mut().for_each(|sidecar| sidecar.acked = None),
            Event::Clock(by) => self.now += by,
            Event::Lives(replica, longest) => {
                self.lives[replica] = self.lives[replica].changed(longest, self.now);
            }
        }
    }

    fn moves(&mut self, asked: Move) {
        // Whoever was issued anything that has not ended, also if what came after it has.
        let ends = |sidecar: &Sidecar| sidecar.issued.not_after.max(sidecar.used.not_after);
        let live = self.sidecars.iter().enumerate().filter(|(_, s)| ends(s) > self.now);
        let holders: Vec<Holder> = live
            .map(|(who, sidecar)| {
                let said = sidecar.acked.filter(|(generation, _)| *generation == self.generation);
                Holder {
                    name: who.to_string(),
                    trusts: said.is_some(),
                    under_active: said.is_some_and(|(_, root)| root == self.active),
                    issued_elsewhere: sidecar.issued.root != self.active,
                }
            })
            .collect();
        let lagging: Vec<String> = (0..REPLICAS)
            .filter(|replica| self.signers[*replica] != self.active)
            .map(|replica| format!("replica {replica}"))
            .collect();
        let view = View {
            rung: self.rung,
            since: self.since,
            now: self.now,
            lives: &self.lives,
            holders: &holders,
            lagging: &lagging,
            federated: &[],
        };
        if judge(asked, &view, &BTreeSet::new()).is_err() {
            return;
        }
        let other = self.roots.iter().copied().find(|root| *root != self.active);
        let other = other.unwrap_or(self.active);
        (self.moves, self.since) = (self.moves + 1, self.now);
        match (asked, self.rung) {
            (Move::Prepare, _) => {
                self.made += 1;
                self.roots.insert(self.made);
                (self.rung, self.generation) = (Rung::Prepared, self.generation + 1);
            }
            (Move::Activate, _) | (Move::Abort, Rung::Activated) => {
                (self.rung, self.active) = (Rung::Activated, other);
            }
            (Move::Retire | Move::Abort, _) => {
                self.roots = BTreeSet::from([self.active]);
                (self.rung, self.generation) = (Rung::Settled, self.generation + 1);
            }
        }
    }

    fn hears(&mut self, who: usize, answers: bool) {
        let sidecar = &mut self.sidecars[who];
        // A bundle without the root of the SVID in use is not taken: it renews first.
        if sidecar.used.not_after <= self.now || !self.roots.contains(&sidecar.used.root) {
            return;
        }
        (sidecar.generation, sidecar.bundle) = (self.generation, self.roots.clone());
        if answers && self.rung != Rung::Settled {
            sidecar.acked = Some((self.generation, sidecar.used.root));
        }
    }

    fn renews(&mut self, who: usize, replica: usize, lost: bool) {
        let sidecar = &mut self.sidecars[who];
        let root = self.signers[replica];
        // A replica that has not followed the ladder issues nothing.
        let follows = match self.rung {
            Rung::Activated => root == self.active,
            Rung::Settled | Rung::Prepared => self.roots.contains(&root),
        };
        if !follows {
            return;
        }
        sidecar.issued = Svid { root, not_after: self.now + self.lives[replica].longest };
        if !lost {
            sidecar.used = sidecar.issued;
            (sidecar.generation, sidecar.bundle) = (self.generation, self.roots.clone());
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let live: Vec<&Sidecar> =
            self.sidecars.iter().filter(|sidecar| sidecar.used.not_after > self.now).collect();
        for one in &live {
            let root = one.used.root;
            prop_assert!(self.roots.contains(&root), "an SVID of retired root {root} lives");
            for other in &live {
                prop_assert!(other.bundle.contains(&root), "{other:?} refuses {one:?}");
            }
        }
        Ok(())
    }
}

fn event() -> impl Strategy<Value = Event> {
    let (who, replica) = (0..SIDECARS, 0..REPLICAS);
    prop_oneof![
        4 => proptest::sample::select(&Move::ALL[..]).prop_map(Event::Move),
        4 => who.clone().prop_map(Event::Hear),
        1 => who.clone().prop_map(Event::HearSilently),
        4 => (who, replica.clone(), any::<bool>()).prop_map(|(a, b, c)| Event::Renew(a, b, c)),
        2 => replica.clone().prop_map(Event::CatchUp),
        1 => Just(Event::Crash),
        2 => (1..LIVES[0]).prop_map(Event::Clock),
        1 => (replica, proptest::sample::select(&LIVES[..])).prop_map(|(a, b)| Event::Lives(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn live_sidecars_verify_each_other_at_every_instant_and_no_retired_root_counts(
        events in proptest::collection::vec(event(), 1..400),
    ) {
        let mut mesh = Mesh::new();
        for event in &events {
            mesh.happens(event);
            mesh.check()?;
        }
    }
}

#[test]
fn the_model_does_climb() {
    let mut mesh = Mesh::new();
    for asked in [Move::Prepare, Move::Activate, Move::Retire] {
        (0..SIDECARS).for_each(|who| mesh.renews(who, 0, false));
        (0..SIDECARS).for_each(|who| mesh.hears(who, true));
        mesh.happens(&Event::Move(asked));
        (0..REPLICAS).for_each(|replica| mesh.happens(&Event::CatchUp(replica)));
    }
    assert_eq!((mesh.moves, mesh.active, mesh.rung), (3, 2, Rung::Settled));
}
