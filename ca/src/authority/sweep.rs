//! Housekeeping: what has ended leaves the live view at once and the journal after a while.
//!
//! Never: removes anything that a decision could still rest on.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::denied::Denied;
use super::{Authority, KEPT_AFTER_END};
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressRecord, Batch, CompanionRecord, DenialRecord, Entry, HeldRecord, HostRecord,
    IssuedRecord, JournalError, LineageRecord, Record, TokenRecord,
};
use crate::store::Commit;

/// Removals in one commit: half of what the store allows.
const BATCH: usize = 64;
/// How long a denial stays on the list after its end: sidecars judge by their own clocks, which may
/// be behind ours by the skew that certificates are backdated for, several times over.
const DENIALS_KEPT: Duration = Duration::from_secs(600);

impl Authority {
    /// Drops expired claims from the live view and announces it.
    pub fn expire(&self) -> usize {
        self.live.expire(self.clock.seconds())
    }

    /// Removes from the journal what ended long ago; yields how many records went.
    pub async fn sweep(&self) -> Result<usize, JournalError> {
        let now = self.clock.seconds();
        let long_ago = |end: UnixSeconds| end + KEPT_AFTER_END.as_secs() <= now;
        let mut gone = self.sweep_kind(|token: &TokenRecord| long_ago(token.expires)).await?;
        gone += self.sweep_kind(|issued: &IssuedRecord| long_ago(issued.not_after)).await?;
        gone += self.sweep_kind(|held: &HeldRecord| long_ago(held.not_after)).await?;
        gone += self.sweep_kind(|record: &CompanionRecord| long_ago(record.not_after)).await?;
        gone += self
            .sweep_kind(|address: &AddressRecord| {
                address.claims.iter().all(|claim| long_ago(claim.not_after))
            })
            .await?;
        gone += self.sweep_lineages(long_ago).await?;
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

    /// A lineage goes when its last certificate ended long ago; the host's current one stays with
    /// the host.
    async fn sweep_lineages(
        &self,
        long_ago: impl Fn(UnixSeconds) -> bool,
    ) -> Result<usize, JournalError> {
        let hosts = self.journal.all::<HostRecord>().await?;
        let current: std::collections::HashSet<String> = hosts
            .into_iter()
            .map(|host| format!("{}{}", LineageRecord::PREFIX, host.record.lineage))
            .collect();
        let ended = self.journal.all::<LineageRecord>().await?;
        let ended = ended
            .into_iter()
            .filter(|entry| long_ago(entry.record.not_after) && !current.contains(&entry.key));
        self.remove(ended.collect()).await
    }

    async fn sweep_kind<R: Record>(
        &self,
        ended: impl Fn(&R) -> bool,
    ) -> Result<usize, JournalError> {
        let all = self.journal.all::<R>().await?;
        self.remove(all.into_iter().filter(|entry| ended(&entry.record)).collect()).await
    }

    async fn remove<R: Record>(&self, entries: Vec<Entry<R>>) -> Result<usize, JournalError> {
        let mut gone = 0;
        for entries in entries.chunks(BATCH) {
            let mut batch = Batch::default();
            entries.iter().for_each(|entry| batch.remove(entry));
            // A conflict means that one of them is in use again: the next sweep decides anew.
            if let Commit::Committed { .. } = self.journal.commit(batch).await? {
                gone += entries.len();
            }
        }
        Ok(gone)
    }
}
