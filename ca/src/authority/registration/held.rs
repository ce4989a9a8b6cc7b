//! The entries as this process holds them, read again when their version in the journal is another.
//!
//! Never: lets a commit that rests on entries pass a change of them by.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Arc, PoisonError};

use super::super::Authority;
use super::name;
use crate::journal::{Batch, CURRENT, Entry, EntryRecord, Journal, JournalError, RegistryRecord};

/// Readings of version and entries until both are of one moment.
const MAX_READINGS: usize = 8;

/// All entries at one version.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Registered {
    version: Option<Entry<RegistryRecord>>,
    entries: Arc<Vec<Named>>,
}

#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) record: EntryRecord,
}

impl Registered {
    pub(super) async fn read(journal: &Journal) -> Result<Self, JournalError> {
        let mut version = journal.read::<RegistryRecord>(CURRENT).await?;
        for _ in 0..MAX_READINGS {
            let entries = journal.all::<EntryRecord>().await?;
            let after = journal.read::<RegistryRecord>(CURRENT).await?;
            if revision(&after) == revision(&version) {
                let named =
                    |entry: Entry<EntryRecord>| Named { name: name(&entry), record: entry.record };
                let entries = Arc::new(entries.into_iter().map(named).collect());
                return Ok(Self { version, entries });
            }
            version = after;
        }
        let why = "it changes faster than it can be read; try again".to_owned();
        Err(JournalError::Unreadable { key: format!("registry/{CURRENT}"), why })
    }

    /// For tables of choices, which need no journal.
    #[cfg(test)]
    pub(super) fn of(entries: Vec<Named>) -> Self {
        Self { version: None, entries: Arc::new(entries) }
    }

    pub(super) fn entries(&self) -> &[Named] {
        &self.entries
    }

    /// The decision rests on these entries and no others.
    pub(in super::super) fn expect(&self, batch: &mut Batch) {
        match &self.version {
            Some(version) => batch.unchanged(version),
            None => batch.absent::<RegistryRecord>(CURRENT),
        }
    }

    pub(super) fn grow(&self, batch: &mut Batch) {
        grow(self.version.as_ref(), batch);
    }
}

pub(super) fn grow(version: Option<&Entry<RegistryRecord>>, batch: &mut Batch) {
    let next = version.map_or(0, |entry| entry.record.version) + 1;
    batch.put(CURRENT, version, &RegistryRecord { version: next });
}

fn revision(version: &Option<Entry<RegistryRecord>>) -> Option<u64> {
    version.as_ref().map(|entry| entry.revision)
}

impl Authority {
    /// The entries of this moment.
    pub(in super::super) async fn registered(&self) -> Result<Registered, JournalError> {
        let held = self.registered.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stored = self.journal.read::<RegistryRecord>(CURRENT).await?;
        if revision(&stored) == revision(&held.version) {
            return Ok(held);
        }
        let fresh = Registered::read(&self.journal).await?;
        *self.registered.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        Ok(fresh)
    }
}
