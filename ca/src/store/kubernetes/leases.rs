//! Leases as records in the head, so that a commit under a lease is compared with it in the same write.
//! An object of the API's own kind could be taken by somebody else between the two.
//!
//! Nobody's clock is compared with another's: who wants a lease that somebody holds must have seen it
//! unchanged for as long as it lives, and who holds one stops by his own clock.
//!
//! Never: takes somebody else's lease sooner than its life after it was first seen.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;

use super::{Inner, values};
use crate::store::{Commit, Expect, Lease, StoreError, Versioned, Write};

/// Leases that one process holds or waits for; each names a piece of housekeeping.
const MAX_LEASES: usize = 256;
/// Tries to take or keep a lease that changes meanwhile.
const MAX_TRIES: usize = 8;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    holder: String,
    #[prost(uint64, tag = "2")]
    fence: u64,
    #[prost(uint64, tag = "3")]
    ttl_ms: u64,
    /// Grows with each renewal.
    #[prost(uint64, tag = "4")]
    beat: u64,
}

/// What this process knows of leases by its own clock.
#[derive(Default)]
pub(super) struct Held {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Ours: fence, and until when.
    ours: HashMap<String, (u64, Instant)>,
    /// Others': fence and beat, and since when they are the same.
    theirs: HashMap<String, (u64, u64, Instant)>,
}

/// The fence of a lease as it rests.
pub(super) fn fence(resting: &[u8]) -> Option<u64> {
    record(resting).map(|record| record.fence)
}

fn record(resting: &[u8]) -> Option<Record> {
    Record::decode(values::whole(resting, |_| None)?.as_slice()).ok()
}

impl Held {
    /// Whether we hold it by our own clock.
    pub(super) fn alive(&self, name: &str, fence: u64) -> bool {
        let now = Instant::now();
        self.table().ours.get(name).is_some_and(|(ours, until)| *ours == fence && *until > now)
    }

    fn ours(&self, name: &str, fence: u64, until: Instant) -> Result<(), StoreError> {
        let mut table = self.table();
        table.theirs.remove(name);
        if table.ours.len() >= MAX_LEASES && !table.ours.contains_key(name) {
            let now = Instant::now();
            table.ours.retain(|_, (_, until)| *until > now);
        }
        let found = table.ours.len() + 1;
        if found > MAX_LEASES {
            return Err(StoreError::Bound {
                what: "the table of leases",
                found,
                bound: MAX_LEASES,
            });
        }
        table.ours.insert(name.to_owned(), (fence, until));
        Ok(())
    }

    /// Whether somebody else's lease was seen like this for all of its life.
    fn over(&self, name: &str, seen: &Record) -> bool {
        let now = Instant::now();
        let mut table = self.table();
        if table.theirs.len() >= MAX_LEASES {
            table.theirs.clear();
        }
        let known = table.theirs.entry(name.to_owned()).or_insert((seen.fence, seen.beat, now));
        if (known.0, known.1) != (seen.fence, seen.beat) {
            *known = (seen.fence, seen.beat, now);
        }
        now.duration_since(known.2) >= Duration::from_millis(seen.ttl_ms)
    }

    fn lost(&self, name: &str, fence: u64) {
        let mut table = self.table();
        if table.ours.get(name).is_some_and(|(ours, _)| *ours == fence) {
            table.ours.remove(name);
        }
    }

    // Each change is one insert or remove: a panic leaves nothing half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub(super) async fn acquire(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        for _ in 0..MAX_TRIES {
            let found = self.lease(name).await?;
            if let Some((_, theirs)) = &found
                && theirs.holder != holder
                && !self.held.over(name, theirs)
            {
                return Ok(None);
            }
            let fence = self.nonce();
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let record = Record { holder: holder.to_owned(), fence, ttl_ms, beat: 0 };
            let until = Instant::now() + ttl;
            if self.put_lease(name, found.map(|(at, _)| at), Some(record)).await? {
                self.held.ours(name, fence, until)?;
                let (name, holder) = (name.to_owned(), holder.to_owned());
                return Ok(Some(Lease { name, holder, fence, handle: 0 }));
            }
        }
        Ok(None)
    }

    pub(super) async fn keep(&self, lease: &Lease) -> Result<bool, StoreError> {
        for _ in 0..MAX_TRIES {
            let found = self.lease(&lease.name).await?;
            let ours = found.filter(|(_, it)| it.fence == lease.fence);
            let Some((at, mut record)) = ours.filter(|_| self.held.alive(&lease.name, lease.fence))
            else {
                self.held.lost(&lease.name, lease.fence);
                return Ok(false);
            };
            let until = Instant::now() + Duration::from_millis(record.ttl_ms);
            record.beat += 1;
            if self.put_lease(&lease.name, Some(at), Some(record)).await? {
                self.held.ours(&lease.name, lease.fence, until)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.held.lost(&lease.name, lease.fence);
        for _ in 0..MAX_TRIES {
            let found = self.lease(&lease.name).await?;
            let Some((at, _)) = found.filter(|(_, it)| it.fence == lease.fence) else { break };
            if self.put_lease(&lease.name, Some(at), None).await? {
                break;
            }
        }
        Ok(())
    }

    /// Its revision and what it says.
    async fn lease(&self, name: &str) -> Result<Option<(u64, Record)>, StoreError> {
        self.state.fresh().await?;
        let found: Option<Versioned> = self.state.mirror().raw(&values::lease(name)).cloned();
        let Some(found) = found else { return Ok(None) };
        let unread = || StoreError::KubernetesState(format!("the lease {name} cannot be read"));
        Ok(Some((found.revision, record(&found.value).ok_or_else(unread)?)))
    }

    /// False: it changed meanwhile.
    async fn put_lease(
        &self,
        name: &str,
        at: Option<u64>,
        record: Option<Record>,
    ) -> Result<bool, StoreError> {
        let key = values::lease(name);
        let expect = match at {
            None => Expect::Absent(key.clone()),
            Some(revision) => Expect::Revision(key.clone(), revision),
        };
        let write = match record {
            Some(record) => Write::Put(key, values::resting(&record.encode_to_vec())),
            None => Write::Delete(key),
        };
        let commit = self.enqueue(vec![expect], vec![write]).await?;
        Ok(matches!(commit, Commit::Committed { .. }))
    }
}
