//! The second half of revoking an ID, after its denial holds: bar each of its hosts, void its
//! waiting tokens, and shorten the denial to the end of its last certificate. Idempotent, so that
//! it is simply done again if it was interrupted.
//!
//! Never: lifts a denial of which anything is left.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::super::denied::Denied;
use super::{MAX_ATTEMPTS, RevokeError, number_in};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, DenialRecord, DeniedId, Entry, HostRecord, IssuedRecord, Journal, JournalError, Record,
    TokenRecord,
};
use crate::store::Commit;

/// Records that change in one commit: half of what the store allows.
const BATCH: usize = 64;
/// Rounds over hosts or tokens of which some changed under our hands. Nothing is issued to them any
/// more, so only what was under way when the denial came can cause a second round.
const MAX_ROUNDS: usize = 8;

/// Whoever began may take this long; after it, somebody else goes on. The ID is denied all the
/// while.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// What a denied ID concerned.
pub(super) struct Concerned {
    /// `None`: nothing at all, and the denial is gone again.
    pub(super) until: Option<UnixSeconds>,
    pub(super) hosts: usize,
    pub(super) tokens: usize,
}

/// Goes on with every denial that was interrupted; yields how many there were. By the clock.
pub async fn settle_all(journal: &Journal, now: UnixSeconds) -> Result<usize, RevokeError> {
    let denied = Denied::read(journal, now).await?;
    let left = |record: &DenialRecord| !record.settled && record.at + LEFT_ALONE.as_secs() <= now;
    let open = denied.records().iter().filter(|entry| left(&entry.record));
    let numbers: Vec<u64> = open.map(|entry| number_in(&entry.key)).collect();
    for number in &numbers {
        settle(journal, *number, now).await?;
    }
    Ok(numbers.len())
}

pub(super) async fn settle(
    journal: &Journal,
    number: u64,
    now: UnixSeconds,
) -> Result<Concerned, RevokeError> {
    let denied = Denied::read(journal, now).await?;
    let entry = denied.record(number).ok_or(RevokeError::NumberUnknown(number))?;
    let Some(DeniedId { spiffe_id: id, .. }) = &entry.record.id else {
        return Ok(Concerned { until: Some(entry.record.until()), hosts: 0, tokens: 0 });
    };
    let until = last_end(journal, id, now).await?;
    let bars = |host: &HostRecord| host.barred_by.contains(&number);
    change_all(
        journal,
        // Also those that another denial bars already: it may be undone before this one.
        |host: &HostRecord| host.grant.spiffe_id == *id && !bars(host),
        |host| host.barred(number),
    )
    .await?;
    // Those that an interrupted run barred are counted as well.
    let barred = journal.all::<HostRecord>().await?;
    let hosts = barred.iter().filter(|host| bars(&host.record)).count();
    let tokens = change_all(
        journal,
        |token: &TokenRecord| {
            token.grant.spiffe_id == *id && token.used.is_none() && token.expires > now
        },
        |token| TokenRecord { expires: now, ..token.clone() },
    )
    .await?;
    let until = until.or_else(|| (hosts + tokens > 0).then_some(now));
    finish(journal, number, until, now).await?;
    Ok(Concerned { until, hosts, tokens })
}

/// Lets the hosts in again that this denial barred, and no other does.
pub(super) async fn unbar_hosts(journal: &Journal, number: u64) -> Result<usize, RevokeError> {
    change_all(
        journal,
        |host: &HostRecord| host.barred_by.contains(&number),
        |host| host.unbarred(number),
    )
    .await
}

/// The end of the last unexpired certificate of this ID.
async fn last_end(
    journal: &Journal,
    id: &str,
    now: UnixSeconds,
) -> Result<Option<UnixSeconds>, JournalError> {
    let (mut last, mut after) = (None, None::<String>);
    loop {
        let page = journal.page::<IssuedRecord>("", after.as_deref()).await?;
        let Some(end) = page.last() else { return Ok(last) };
        after = Some(end.key.clone());
        let ends = page.iter().filter(|entry| entry.record.spiffe_id == id);
        last = ends.map(|entry| entry.record.not_after).filter(|end| *end >= now).max().max(last);
    }
}

/// Writes down that the denial is carried out, and how long it has to last.
async fn finish(
    journal: &Journal,
    number: u64,
    until: Option<UnixSeconds>,
    now: UnixSeconds,
) -> Result<(), RevokeError> {
    for _ in 0..MAX_ATTEMPTS {
        let denied = Denied::read(journal, now).await?;
        let Some(entry) = denied.record(number) else { return Ok(()) };
        let mut batch = Batch::default();
        match (&entry.record.id, until) {
            (Some(id), Some(until)) => {
                let id = Some(DeniedId { until, ..id.clone() });
                let record = DenialRecord { id, settled: true, ..entry.record.clone() };
                denied.replace(&mut batch, entry, &record);
            }
            _ => denied.remove(&mut batch, entry),
        }
        if let Commit::Committed { .. } = journal.commit(batch).await? {
            return Ok(());
        }
    }
    Err(RevokeError::Contended)
}

/// Changes every record that `concerns`; yields how many.
async fn change_all<R: Record>(
    journal: &Journal,
    concerns: impl Fn(&R) -> bool,
    changed: impl Fn(&R) -> R,
) -> Result<usize, RevokeError> {
    let mut count = 0;
    for _ in 0..MAX_ROUNDS {
        let all: Vec<Entry<R>> = journal.all::<R>().await?;
        let concerned: Vec<Entry<R>> =
            all.into_iter().filter(|entry| concerns(&entry.record)).collect();
        if concerned.is_empty() {
            return Ok(count);
        }
        for entries in concerned.chunks(BATCH) {
            let mut batch = Batch::default();
            entries.iter().for_each(|entry| batch.replace(entry, &changed(&entry.record)));
            // A conflict leaves them to the next round.
            if let Commit::Committed { .. } = journal.commit(batch).await? {
                count += entries.len();
            }
        }
    }
    Err(RevokeError::Contended)
}
