//! Who has said, under its SVID, that it trusts the present bundle. Heard on the bundle watches,
//! kept in memory, and written to the store in batches so that every replica knows it.
//!
//! Never: believes an acknowledgement of a generation that does not exist, or of somebody else's
//! SVID; keeps anything while no rotation is under way.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use myelin_identity::bundle::Rung;
use myelin_identity::issuance::BundleAck;
use myelin_identity::verify::Peer;

use super::Authority;
use crate::journal::{AckRecord, Batch, Hex, JournalError, Readable, Record as _};
use crate::rotation::ladder::Holder;

/// Acknowledgements written in one commit: half of what the store allows.
const BATCH: usize = 64;

/// What became of an acknowledgement. The word is the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It counts.
    Noted,
    /// No rotation is under way, or it was heard before.
    Unneeded,
    /// It trusts an older bundle still.
    Behind,
    /// There is no such generation: a mistake or a lie.
    NoSuchGeneration,
    /// The SVID under which it was said is nobody's current one.
    NotCurrent,
}

/// What was heard at this replica.
#[derive(Default)]
pub(super) struct Acks(Mutex<Ears>);

#[derive(Default)]
struct Ears {
    heard: HashMap<Hex, AckRecord>,
    unwritten: BTreeSet<Hex>,
}

impl Heard {
    pub const ALL: [Self; 5] =
        [Self::Noted, Self::Unneeded, Self::Behind, Self::NoSuchGeneration, Self::NotCurrent];

    pub fn word(self) -> &'static str {
        match self {
            Self::Noted => "noted",
            Self::Unneeded => "unneeded",
            Self::Behind => "behind",
            Self::NoSuchGeneration => "no_such_generation",
            Self::NotCurrent => "not_current",
        }
    }
}

impl Acks {
    fn ears(&self) -> MutexGuard<'_, Ears> {
        // Each write is one insert: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authority {
    /// Hears what a peer says over its watch.
    pub fn acknowledge(&self, peer: &Peer, ack: BundleAck) -> Heard {
        let step = self.rotation.step();
        let present = step.step.bundle.generation();
        if ack.generation > present {
            return Heard::NoSuchGeneration;
        }
        if ack.generation < present {
            return Heard::Behind;
        }
        if step.step.rung == Rung::Settled {
            return Heard::Unneeded;
        }
        let serial = Hex(peer.serial.as_bytes().to_vec());
        let Some(host) = self.live.host_of(&peer.ip_sans, &serial) else {
            return Heard::NotCurrent;
        };
        let record = AckRecord {
            generation: ack.generation,
            serial,
            root: Hex(peer.root.as_bytes().to_vec()),
        };
        let mut ears = self.acks.ears();
        if ears.heard.get(&host) == Some(&record) {
            return Heard::Unneeded;
        }
        ears.heard.insert(host.clone(), record);
        ears.unwritten.insert(host);
        Heard::Noted
    }

    /// Writes down what was heard since the last time; what cannot be written now is kept.
    pub async fn write_acks(&self) -> Result<(), JournalError> {
        loop {
            let mut batch = Batch::default();
            let written: Vec<Hex> = {
                let ears = self.acks.ears();
                let some: Vec<Hex> = ears.unwritten.iter().take(BATCH).cloned().collect();
                for host in &some {
                    if let Some(record) = ears.heard.get(host) {
                        batch.overwrite(&host.to_string(), record);
                    }
                }
                some
            };
            if batch.is_empty() {
                return Ok(());
            }
            let _ = self.journal.commit(batch).await?;
            let mut ears = self.acks.ears();
            written.iter().for_each(|host| _ = ears.unwritten.remove(host));
        }
    }

    /// Every holder of an unexpired SVID, with what it has acknowledged here or at any replica; and
    /// the keys of acknowledgements that cannot be read. They say nothing, and their holders' next
    /// ones replace them.
    pub(super) async fn holders(&self) -> Result<(Vec<Holder>, Vec<String>), JournalError> {
        let step = self.rotation.step();
        let generation = step.step.bundle.generation();
        let active = Hex(step.step.active.as_bytes().to_vec());
        let Readable { entries, unreadable } = self.journal.find_all::<AckRecord>("").await?.into();
        let stored: HashMap<String, AckRecord> =
            entries.into_iter().map(|entry| (entry.key, entry.record)).collect();
        let now = self.clock.seconds();
        let mut claims: BTreeMap<Hex, (String, Hex)> = self
            .live
            .unexpired(now)
            .into_iter()
            .map(|(_, claim)| (claim.host, (claim.spiffe_id, claim.root)))
            .collect();
        // What these were issued last has ended; time or their own word lets them through.
        let outlived = self.outlived(|host| claims.contains_key(host), now).await?;
        claims.extend(outlived.into_iter().map(|(host, id)| (host, (id, active.clone()))));
        let mut ears = self.acks.ears();
        let present: HashSet<&Hex> = claims.keys().collect();
        ears.heard.retain(|host, _| present.contains(host));
        let damaged = |host: &&Hex| unreadable.contains(&key_of(host));
        if !unreadable.is_empty() {
            let again: Vec<Hex> = ears.heard.keys().filter(damaged).cloned().collect();
            ears.unwritten.extend(again);
        }
        let said = |host: &Hex| {
            let both = [ears.heard.get(host), stored.get(&key_of(host))];
            let now = both.into_iter().flatten().filter(|ack| ack.generation == generation);
            let now: Vec<&AckRecord> = now.collect();
            (!now.is_empty(), now.iter().any(|ack| ack.root == active))
        };
        let holder = |(host, (name, root)): (&Hex, &(String, Hex))| {
            let (trusts, under_active) = said(host);
            Holder { name: name.clone(), trusts, under_active, issued_elsewhere: *root != active }
        };
        let holders = claims.iter().map(holder).collect();
        Ok((holders, unreadable))
    }

    /// Forgets what was heard for a rung that is left.
    pub(super) fn forget_acks(&self) {
        let mut ears = self.acks.ears();
        ears.heard.clear();
        ears.unwritten.clear();
    }
}

fn key_of(host: &Hex) -> String {
    format!("{}{host}", AckRecord::PREFIX)
}
