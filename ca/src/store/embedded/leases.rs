//! Leases among the tasks of this process. The file's lock keeps other processes out, so they need
//! not outlive it.
//!
//! Never: frees a lease before its time because its holder looks idle.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Lease, StoreError};

/// Leases at once: each names a piece of housekeeping, of which there are a handful.
const MAX_LEASES: usize = 256;

#[derive(Default)]
pub(super) struct Leases {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    held: HashMap<String, Held>,
    fence: u64,
}

struct Held {
    holder: String,
    fence: u64,
    ttl: Duration,
    until: Instant,
}

impl Leases {
    pub(super) fn acquire(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let now = Instant::now();
        let mut table = self.table();
        table.held.retain(|_, held| held.until > now);
        if table.held.get(name).is_some_and(|held| held.holder != holder) {
            return Ok(None);
        }
        if table.held.len() >= MAX_LEASES {
            let (found, bound) = (table.held.len() + 1, MAX_LEASES);
            return Err(StoreError::Bound { what: "the table of leases", found, bound });
        }
        table.fence += 1;
        let fence = table.fence;
        let held = Held { holder: holder.to_owned(), fence, ttl, until: now + ttl };
        table.held.insert(name.to_owned(), held);
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Ok(Some(Lease { name, holder, fence, handle: 0 }))
    }

    pub(super) fn keep(&self, lease: &Lease) -> bool {
        let now = Instant::now();
        let mut table = self.table();
        let held = table.held.get_mut(&lease.name);
        let ours = held.filter(|held| held.fence == lease.fence && held.until > now);
        ours.map(|held| held.until = now + held.ttl).is_some()
    }

    pub(super) fn release(&self, lease: &Lease) {
        let mut table = self.table();
        if table.held.get(&lease.name).is_some_and(|held| held.fence == lease.fence) {
            table.held.remove(&lease.name);
        }
    }

    pub(super) fn holds(&self, name: &str, fence: u64) -> bool {
        let table = self.table();
        table.held.get(name).is_some_and(|held| held.fence == fence && held.until > Instant::now())
    }

    // Each change is one insert or remove: a panic leaves nothing half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
