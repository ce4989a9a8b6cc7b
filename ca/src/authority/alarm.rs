//! The alarm: one SVID was renewed twice, so two parties hold it. Both lineages, every unexpired
//! certificate of the host and the host key itself are denied, in one commit, and the deny list
//! says so with a new epoch.
//!
//! Never: tries to tell the thief from the owner.

// SPDX-License-Identifier: Apache-2.0

use super::denied::Denied;
use super::seen::Seen;
use super::{Authority, IssueError};
use crate::attest::Proven;
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, Cause, DenialRecord, DeniedSerial, Held, HostRecord, LineageRecord, LineageState,
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
        let denial = DenialRecord {
            at: now,
            cause: Cause::Alarm,
            reason: String::new(),
            id: None,
            serials: held_by(&host.record, now),
            settled: true,
        };
        let number = Denied::read(&self.journal, now).await?.add(&mut batch, &denial)?;
        // Every issue writes the host's record, so none can slip in between the list above and this
        // commit.
        batch.replace(host, &host.record.barred(number));
        let mut freed = Vec::new();
        let addresses = &host.record.grant.addresses;
        for (address, entry) in addresses.iter().zip(self.claims_at(addresses).await?) {
            let Some(entry) = entry else { continue };
            let mut left = entry.record.clone();
            left.claims.retain(|claim| claim.host != *proven.host());
            batch.replace(&entry, &left);
            freed.push((*address, left));
        }
        let commit = self.journal.commit(batch).await?;
        if let Commit::Committed { revision } = commit {
            for (address, left) in &freed {
                self.live.publish(*address, left, revision);
            }
            // A failure to read or to sign is told by the next tick; the denial itself is on disk.
            let _ = self.hear_denials().await;
        }
        Ok(commit)
    }
}

/// The unexpired certificates of a host, as entries of a denial.
pub(super) fn held_by(host: &HostRecord, now: UnixSeconds) -> Vec<DeniedSerial> {
    let denied = |held: &Held| DeniedSerial { serial: held.serial.clone(), until: held.not_after };
    host.unexpired(now).map(denied).collect()
}
