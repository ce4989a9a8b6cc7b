//! How long what was issued may live, as each replica says of itself in the store before it issues
//! anything: the gates of the root ladder open by time when all of that has ended, whatever the
//! setting is today.
//!
//! Never: makes a gate open earlier because a record cannot be read, or because a store in which
//! somebody has issued says nothing of lives at all.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use super::Authority;
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, Found, Hex, HostRecord, IssuedRecord, Journal, JournalError, LivesRecord, Readable,
    Record as _, shown,
};
use crate::replica::ReplicaId;
use crate::template::MAX_LIFETIME;

/// States what this replica gives from now on. Only itself writes its record.
pub(super) async fn state_lives(
    journal: &Journal,
    replica: &ReplicaId,
    longest: u64,
    now: UnixSeconds,
) -> Result<(), JournalError> {
    let name = replica.to_string();
    let unknown = LivesRecord::new(MAX_LIFETIME.as_secs());
    let before = match journal.read::<LivesRecord>(&name).await {
        Ok(Some(entry)) => Some(entry.record),
        Ok(None) => whoever_was_before(journal).await?.then_some(unknown),
        Err(JournalError::Unreadable { key, why }) => {
            tracing::warn!(
                key,
                why,
                "how long SVIDs lived before is not known; the longest counts"
            );
            Some(unknown)
        }
        Err(error) => return Err(error),
    };
    let stated = match before {
        Some(before) => before.changed(longest, now),
        None => LivesRecord::new(longest),
    };
    if before == Some(stated) {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.overwrite(&name, &stated);
    journal.commit(batch).await.map(drop)
}

/// Whether somebody has issued from this store who stated nothing: a version of before this record.
async fn whoever_was_before(journal: &Journal) -> Result<bool, JournalError> {
    if !journal.page_found::<LivesRecord>("", None).await?.is_empty() {
        return Ok(false);
    }
    Ok(!journal.page_found::<IssuedRecord>("", None).await?.is_empty())
}

/// Whether an SVID may end before one that was issued earlier to the same host.
fn uneven(lives: &[LivesRecord], now: UnixSeconds) -> bool {
    let earlier = lives.iter().filter(|lives| lives.earlier_end > now).map(|lives| lives.earlier);
    let longest = lives.iter().map(|lives| lives.longest).chain(earlier).max();
    lives.iter().any(|lives| Some(lives.longest) < longest)
}

impl Authority {
    /// Hosts that are not among `known` because their last SVID has ended, and that hold an earlier
    /// one which lives longer: with an ID each. While all lives are of one length there are none, and
    /// nothing is read.
    pub(super) async fn outlived(
        &self,
        known: impl Fn(&Hex) -> bool,
        now: UnixSeconds,
    ) -> Result<BTreeMap<Hex, String>, JournalError> {
        let (mut found, mut after) = (BTreeMap::new(), None::<String>);
        if !uneven(&self.lives().await?, now) {
            return Ok(found);
        }
        loop {
            let page = self.journal.page_found::<HostRecord>("", after.as_deref()).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.key.clone());
            for Found { key, record, .. } in page {
                let name = key.trim_start_matches(HostRecord::PREFIX);
                let host: Hex = name.parse().unwrap_or_else(|()| Hex::empty());
                let id = match record {
                    Ok(record) if record.unexpired(now).next().is_none() => continue,
                    Ok(record) => record.grant.spiffe_id,
                    // What it holds is not known: it may be the one that would be stranded.
                    Err(_) => shown(&key),
                };
                if !known(&host) {
                    found.insert(host, id);
                }
            }
        }
    }

    /// Of every replica that this store has known, as long as anything that it issued may be in use.
    pub(super) async fn lives(&self) -> Result<Vec<LivesRecord>, JournalError> {
        let gone = self.rotation.gone(self.clock.seconds()).await?;
        let mut stated: Vec<Found<LivesRecord>> = self.journal.find_all("").await?;
        stated.retain(|found| !gone.contains(found.key.trim_start_matches(LivesRecord::PREFIX)));
        let stated = Readable::from(stated);
        let own = LivesRecord::new(self.settings.lifetimes.longest.as_secs());
        let unknown = stated.unreadable.iter().map(|_| LivesRecord::new(MAX_LIFETIME.as_secs()));
        let read = stated.entries.into_iter().map(|entry| entry.record);
        Ok(read.chain(unknown).chain([own]).collect())
    }
}
