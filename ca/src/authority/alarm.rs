//! The alarm: one SVID was renewed twice, so two parties hold it. Both lineages, every unexpired
//! certificate of the host and the host key itself are denied, in one commit, and the deny list
//! says so with a new epoch.
//!
//! Never: tries to tell the thief from the owner.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::MAX_DENY_ENTRIES;

use super::seen::Seen;
use super::{Authority, IssueError, deny_list};
use crate::attest::Proven;
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressRecord, Batch, CURRENT, DeniedSerial, DenyRecord, HeldRecord, HostRecord, LineageRecord,
    LineageState,
};
use crate::store::Commit;

impl Authority {
    /// Denies all that the host of this request holds.
    pub(super) async fn alarm(
        &self,
        proven: &Proven,
        seen: &Seen,
        now: UnixSeconds,
    ) -> Result<Commit, IssueError> {
        let (Some(host), Some(presented)) = (&seen.host, &seen.lineage) else {
            return Ok(Commit::Conflict);
        };
        let mut batch = Batch::default();
        // Every issue writes the host's record, so none can slip in between the list below and this
        // commit.
        batch.replace(host, &HostRecord { denied: true, ..host.record.clone() });
        let deny = |lineage: &LineageRecord| LineageRecord {
            state: LineageState::Denied,
            ..lineage.clone()
        };
        batch.replace(presented, &deny(&presented.record));
        if let Some(current) = self.lineage(&host.record.lineage).await?
            && current.key != presented.key
        {
            batch.replace(&current, &deny(&current.record));
        }
        let record = self.write_denied(&mut batch, proven, now).await?;
        let mut freed = Vec::new();
        for address in &host.record.grant.addresses {
            let Some(entry) = self.journal.read::<AddressRecord>(&address.to_string()).await?
            else {
                continue;
            };
            let mut left = entry.record.clone();
            left.claims.retain(|claim| claim.host != *proven.host());
            batch.replace(&entry, &left);
            freed.push((*address, left));
        }
        let list = deny_list(&record, now)?;
        let commit = self.journal.commit(batch).await?;
        if let Commit::Committed { .. } = commit {
            for (address, left) in &freed {
                self.live.publish(*address, left);
            }
            self.publish_denied(list);
            // A failure to sign is told by the next heartbeat; the denial itself is on disk.
            let _ = self.say().await;
        }
        Ok(commit)
    }

    async fn write_denied(
        &self,
        batch: &mut Batch,
        proven: &Proven,
        now: UnixSeconds,
    ) -> Result<DenyRecord, IssueError> {
        let current = self.journal.read::<DenyRecord>(CURRENT).await?;
        let mut record = current.as_ref().map(|entry| entry.record.clone()).unwrap_or_default();
        record.epoch += 1;
        record.serials.retain(|denied| denied.until >= now);
        let within = format!("{}/", proven.host());
        let mut after: Option<String> = None;
        loop {
            let page = self.journal.page::<HeldRecord>(&within, after.as_deref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for held in page.into_iter().filter(|held| held.record.not_after >= now) {
                let denied =
                    DeniedSerial { serial: held.record.serial, until: held.record.not_after };
                if !record.serials.contains(&denied) && record.serials.len() < MAX_DENY_ENTRIES {
                    record.serials.push(denied);
                }
            }
        }
        batch.put(CURRENT, current.as_ref(), &record);
        Ok(record)
    }
}
