//! Housekeeping: what has ended leaves the live view at once and the journal after a while.
//!
//! Never: removes anything that a decision could still rest on.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::denied::Denied;
use super::{Authority, KEPT_AFTER_END};
use crate::clock::UnixSeconds;
use crate::journal::{
    AckRecord, AddressRecord, Batch, BoundRecord, CompanionRecord, DenialRecord, Entry, Hex,
    HostRecord, IssuedRecord, JournalError, LineageRecord, Readable, Record, TokenRecord,
};
use crate::store::Commit;

/// Removals in one commit: half of what the store allows.
const BATCH: usize = 64;
/// Name of the lease under which one replica sweeps.
const SWEEPING: &str = "sweep";
/// Between two sweeps lie ten minutes; whoever dies over one holds up the others no longer.
const SWEEP_LEASE: Duration = Duration::from_secs(600);
/// How long a denial stays on the list after its end: sidecars judge by their own clocks, which may
/// be behind ours by the skew that certificates are backdated for, several times over.
const DENIALS_KEPT: Duration = Duration::from_secs(600);

impl Authority {
    /// Drops expired claims from the live view and announces it.
    pub fn expire(&self) -> usize {
        self.live.expire(self.clock.seconds())
    }

    /// Removes from the journal what ended long ago; yields how many records went. One replica at
    /// a time: the others find that it is being done.
    pub async fn sweep(&self) -> Result<usize, JournalError> {
        let holder = self.rotation.replica().to_string();
        let Some(lease) = self.journal.lease(SWEEPING, &holder, SWEEP_LEASE).await? else {
            return Ok(0);
        };
        let gone = self.sweep_all().await;
        self.journal.release(&lease).await?;
        gone
    }

    async fn sweep_all(&self) -> Result<usize, JournalError> {
        let now = self.clock.seconds();
        let long_ago = |end: UnixSeconds| end + KEPT_AFTER_END.as_secs() <= now;
        let mut gone = self.sweep_kind(|token: &TokenRecord| long_ago(token.expires)).await?;
        gone += self.sweep_kind(|issued: &IssuedRecord| long_ago(issued.not_after)).await?;
        gone += self.sweep_kind(|record: &CompanionRecord| long_ago(record.not_after)).await?;
        gone += self
            .sweep_kind(|address: &AddressRecord| {
                address.claims.iter().all(|claim| long_ago(claim.not_after))
            })
            .await?;
        gone += self.sweep_bounds(long_ago).await?;
        gone += self.sweep_lineages(long_ago).await?;
        let present = self.bundle().generation();
        gone += self.sweep_kind(|ack: &AckRecord| ack.generation < present).await?;
        gone += self.sweep_denials(now).await?;
        Ok(gone)
    }

    /// Denials that have ended: what they denied has expired by itself. Each goes with a new epoch,
    /// because a list that shrank without one would contradict what its holders have.
    async fn sweep_denials(&self, now: UnixSeconds) -> Result<usize, JournalError> {
        let mut gone = 0;
        while let Ok(denied) = Denied::read(&self.journal, now).await {
            let ended = |entry: &&Entry<DenialRecord>| {
                entry.record.settled && entry.record.until() + DENIALS_KEPT.as_secs() < now
            };
            let Some(entry) = denied.records().iter().find(ended) else { break };
            let mut batch = Batch::default();
            denied.remove(&mut batch, entry);
            if let Commit::Conflict = self.journal.commit(batch).await? {
                break;
            }
            gone += 1;
        }
        Ok(gone)
    }

    /// What stands for a pod or a machine goes with its last certificate, unless its host is denied:
    /// that one must not come back under another host key.
    async fn sweep_bounds(
        &self,
        long_ago: impl Fn(UnixSeconds) -> bool,
    ) -> Result<usize, JournalError> {
        let (mut gone, mut after) = (0, None::<String>);
        loop {
            let page = self.journal.page::<BoundRecord>("", after.as_deref()).await?;
            let Some(last) = page.last() else { return Ok(gone) };
            after = Some(last.key.clone());
            let ended = page.into_iter().filter(|entry| long_ago(entry.record.not_after));
            let ended: Vec<Entry<BoundRecord>> = ended.collect();
            for ended in ended.chunks(BATCH) {
                let hosts = self.hosts(ended.iter().map(|entry| &entry.record.host)).await?;
                let denied = |at: usize| hosts[at].as_ref().is_some_and(|host| host.record.denied);
                let over = ended.iter().enumerate().filter(|(at, _)| !denied(*at));
                gone += self.remove(over.map(|(_, entry)| entry)).await?;
            }
        }
    }

    pub(super) async fn hosts<'a>(
        &self,
        names: impl Iterator<Item = &'a Hex>,
    ) -> Result<Vec<Option<Entry<HostRecord>>>, JournalError> {
        let names: Vec<String> = names.map(Hex::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.journal.read_many(&names).await
    }

    /// A lineage goes when its last certificate ended long ago; the host's current one stays with
    /// the host.
    async fn sweep_lineages(
        &self,
        long_ago: impl Fn(UnixSeconds) -> bool,
    ) -> Result<usize, JournalError> {
        let (mut gone, mut after) = (0, None::<String>);
        loop {
            let page = self.journal.page::<LineageRecord>("", after.as_deref()).await?;
            let Some(last) = page.last() else { return Ok(gone) };
            after = Some(last.key.clone());
            let ended = page.into_iter().filter(|entry| long_ago(entry.record.not_after));
            let ended: Vec<Entry<LineageRecord>> = ended.collect();
            for ended in ended.chunks(BATCH) {
                let hosts = self.hosts(ended.iter().map(|entry| &entry.record.host)).await?;
                let current = |at: usize, key: &str| {
                    let host = hosts[at].as_ref().map(|host| host.record.lineage.to_string());
                    host.is_some_and(|lineage| key == format!("{}{lineage}", LineageRecord::PREFIX))
                };
                let over = ended.iter().enumerate().filter(|(at, entry)| !current(*at, &entry.key));
                gone += self.remove(over.map(|(_, entry)| entry)).await?;
            }
        }
    }

    /// Page by page: there may be millions.
    async fn sweep_kind<R: Record>(
        &self,
        ended: impl Fn(&R) -> bool,
    ) -> Result<usize, JournalError> {
        let (mut gone, mut after) = (0, None::<String>);
        loop {
            // What cannot be read stays where it is, and keeps nothing else from going.
            let page = self.journal.page_found::<R>("", after.as_deref()).await?;
            let Some(last) = page.last() else { return Ok(gone) };
            after = Some(last.key.clone());
            let Readable { entries, .. } = page.into();
            let read = entries.iter();
            let over: Vec<&Entry<R>> = read.filter(|entry| ended(&entry.record)).collect();
            for over in over.chunks(BATCH) {
                gone += self.remove(over.iter().copied()).await?;
            }
        }
    }

    /// Removes at most a batch of records together.
    async fn remove<'a, R: Record + 'a>(
        &self,
        entries: impl Iterator<Item = &'a Entry<R>>,
    ) -> Result<usize, JournalError> {
        let mut batch = Batch::default();
        entries.for_each(|entry| batch.remove(entry));
        let size = batch.len();
        if size == 0 {
            return Ok(0);
        }
        // A conflict means that one of them is in use again: the next sweep decides anew.
        match self.journal.commit(batch).await? {
            Commit::Committed { .. } => Ok(size),
            Commit::Conflict => Ok(0),
        }
    }
}
