//! How commits get into the head: a group of them by one write of one Secret, whose `resourceVersion`
//! is compared. That write is the commit; there is nothing to finish after it.
//!
//! Never: reports a conflict with ourselves, or one that the latest head does not show.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Inner;
use super::client::Failure;
use super::leases;
use super::mirror::Mirror;
use super::segments::{SPILL_AT, Spill};
use super::shape::{Committed, Entry, Head};
use super::state::Patience;
use super::values;
use crate::store::queue::Waiting;
use crate::store::{Commit, Expect, StoreError, Write};

/// Bytes that one write of the head adds at most, unless a single commit has more: a head stays far
/// below the MiB that a Secret may have.
const MAX_ADDED_BYTES: usize = 128 * 1024;
/// Bytes of everything that lives: three quarters of what all segments hold, since what has died
/// needs room too until it is cleaned away.
pub(super) const MAX_LIVE_BYTES: usize =
    super::segments::MAX_SEGMENTS as usize * super::segments::SEGMENT_BYTES / 4 * 3;

/// A commit on its way.
struct Pending {
    nonce: u64,
    waiting: Waiting,
}

/// What the first few that wait come to, at one head.
struct Draft {
    /// None: nothing is to be written.
    head: Option<Head>,
    version: String,
    /// The revision before.
    before: u64,
    verdicts: Vec<Result<Commit, StoreError>>,
}

/// Writes what waits, group after group, until nothing waits any more.
pub(super) async fn write_all(inner: Arc<Inner>) {
    while let Some(group) = inner.queue.next_group() {
        let pending = |waiting| Pending { nonce: inner.nonce(), waiting };
        let mut pending: VecDeque<Pending> = group.into_iter().map(pending).collect();
        while !pending.is_empty() {
            if let Err(error) = inner.write_some(&mut pending).await {
                for one in pending.drain(..) {
                    // Whoever asked may have gone.
                    let _ = one.waiting.told.send(Err(error.clone()));
                }
            }
        }
    }
}

impl Inner {
    /// As many as one write takes. An error is that of all that still wait.
    async fn write_some(&self, pending: &mut VecDeque<Pending>) -> Result<(), StoreError> {
        let mut patience = Patience::new();
        // The revision before a write of which nobody knows whether it happened.
        let mut unsure: Option<u64> = None;
        loop {
            if self.recognised(pending, unsure)? {
                return Ok(());
            }
            let spill = Spill::needed(&self.state.mirror());
            let failure = if let Some(spill) = spill {
                match self.spill(spill).await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                }
            } else {
                let draft = self.draft(&self.state.mirror(), pending);
                let Some(head) = draft.head else {
                    self.state.fresh().await?;
                    if self.state.mirror().version == draft.version {
                        settle(pending, draft.verdicts);
                        return Ok(());
                    }
                    continue;
                };
                match self.state.put_head(head, &draft.version).await {
                    Ok(()) => {
                        settle(pending, draft.verdicts);
                        return Ok(());
                    }
                    Err(failure) => {
                        if matches!(failure, Failure::Again(_)) {
                            unsure = unsure.or(Some(draft.before));
                        }
                        failure
                    }
                }
            };
            patience.after(failure, "a commit").await?;
            while let Err(failure) = self.state.renew().await {
                patience.after(failure, "a commit").await?;
            }
        }
    }

    /// Whether some of these are in the head already, by a write whose answer was lost; they are told.
    fn recognised(
        &self,
        pending: &mut VecDeque<Pending>,
        unsure: Option<u64>,
    ) -> Result<bool, StoreError> {
        let Some(before) = unsure else { return Ok(false) };
        let mirror = self.state.mirror();
        let ours: HashMap<u64, u64> =
            mirror.head.tail.iter().map(|commit| (commit.nonce, commit.revision)).collect();
        if pending.iter().any(|one| ours.contains_key(&one.nonce)) {
            // What the same write judged to be in conflict is judged again.
            let mut left = VecDeque::new();
            for one in pending.drain(..) {
                match ours.get(&one.nonce) {
                    Some(revision) => {
                        let verdict = Commit::Committed { revision: *revision };
                        let _ = one.waiting.told.send(Ok(verdict));
                    }
                    None => left.push_back(one),
                }
            }
            *pending = left;
            return Ok(true);
        }
        if mirror.head.spilled > before {
            let last = "an answer was lost, and others wrote too much since".to_owned();
            return Err(StoreError::KubernetesUnreachable { what: "a commit", last });
        }
        Ok(false)
    }

    /// Judges those that come first, as if they came one after another.
    fn draft(&self, mirror: &Mirror, pending: &VecDeque<Pending>) -> Draft {
        let mut head = mirror.head.clone();
        let mut overlay = Overlay { mirror, written: HashMap::new() };
        let (mut verdicts, mut added) = (Vec::new(), 0);
        for one in pending {
            let Waiting { expects, writes, .. } = &one.waiting;
            let bytes: usize = writes.iter().map(Write::bytes).sum();
            if added > 0 && added + bytes > MAX_ADDED_BYTES {
                break;
            }
            let live = mirror.bytes() + added + bytes;
            let puts = writes.iter().any(|write| matches!(write, Write::Put(..)));
            if live > MAX_LIVE_BYTES && puts {
                let full = StoreError::KubernetesFull { found: live, bound: MAX_LIVE_BYTES };
                verdicts.push(Err(full));
                continue;
            }
            if !expects.iter().all(|expect| self.holds(&overlay, expect)) {
                verdicts.push(Ok(Commit::Conflict));
                continue;
            }
            head.revision += 1;
            added += bytes + 64;
            let revision = head.revision;
            let entries = overlay.write(writes, revision);
            head.tail.push(Committed { revision, nonce: one.nonce, entries });
            verdicts.push(Ok(Commit::Committed { revision }));
        }
        head.turn += 1;
        let (before, version) = (mirror.head.revision, mirror.version.clone());
        let head = (head.revision > before).then_some(head);
        Draft { head, version, before, verdicts }
    }

    fn holds(&self, overlay: &Overlay<'_>, expect: &Expect) -> bool {
        match expect {
            Expect::Absent(key) => overlay.at(key).is_none(),
            Expect::Revision(key, revision) => {
                overlay.at(key).is_some_and(|(found, _)| found == *revision)
            }
            Expect::Held { name, fence } => {
                let held = overlay.at(&values::lease(name));
                let theirs = held.and_then(|(_, resting)| leases::fence(resting));
                theirs == Some(*fence) && self.held.alive(name, *fence)
            }
        }
    }
}

/// The mirror, and on it what earlier commits of the same write change.
struct Overlay<'a> {
    mirror: &'a Mirror,
    written: HashMap<String, Option<(u64, Vec<u8>)>>,
}

impl Overlay<'_> {
    fn at(&self, key: &str) -> Option<(u64, &[u8])> {
        match self.written.get(key) {
            Some(written) => {
                written.as_ref().map(|(revision, value)| (*revision, value.as_slice()))
            }
            None => self.mirror.raw(key).map(|it| (it.revision, it.value.as_slice())),
        }
    }

    /// The entries of one commit. What rested in parts takes its parts with it.
    fn write(&mut self, writes: &[Write], revision: u64) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(writes.len());
        for write in writes {
            let orphans = self.at(write.key()).map(|(_, resting)| values::keys_of_parts(resting));
            for orphan in orphans.unwrap_or_default() {
                entries.push(Entry { key: orphan, revision, value: None });
            }
            let (key, value) = match write {
                Write::Put(key, value) => (key.clone(), Some(value.clone())),
                Write::Delete(key) => (key.clone(), None),
            };
            entries.push(Entry { key, revision, value });
        }
        for entry in &entries {
            let now = entry.value.clone().map(|value| (revision, value));
            self.written.insert(entry.key.clone(), now);
        }
        entries
    }
}

fn settle(pending: &mut VecDeque<Pending>, verdicts: Vec<Result<Commit, StoreError>>) {
    for verdict in verdicts {
        if let Some(one) = pending.pop_front() {
            let _ = one.waiting.told.send(verdict);
        }
    }
}

/// What one write of the head may be for, beside commits.
const _: () = assert!(SPILL_AT < MAX_ADDED_BYTES, "a head that waits to be spilled is a small one");
