//! The store of a single machine: one redb file in the data directory. Opened by `app`.
//!
//! redb commits are copy-on-write and fsynced before they return, so `kill -9` at any instruction
//! leaves the last commit or the one before it, never half of one. The file is locked: one process
//! at a time.
//!
//! Never: weakens durability, or holds a lock across an await.

// SPDX-License-Identifier: Apache-2.0

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Commit, Expect, MAX_LIST, Store, StoreError, Versioned, Write, within_bounds};

/// key -> revision (8 bytes, little endian) and value.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("myelin.values.v1");
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("myelin.revision.v1");
/// Page cache: a mesh of 10,000 workloads has about 20 MB of live records.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The redb file. Clones share it.
#[derive(Clone)]
pub struct Embedded {
    database: Arc<Database>,
}

impl Embedded {
    /// Opens or creates the file, which is readable by its owner only from its first instant.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|cause| StoreError::Open {
                path: shown.clone(),
                cause,
            })?;
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::HeldElsewhere(shown),
                other => StoreError::Disk(other.to_string()),
            })?;
        let store = Self {
            database: Arc::new(database),
        };
        store.make_tables()?;
        Ok(store)
    }

    fn make_tables(&self) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(disk)?;
        transaction.open_table(VALUES).map_err(disk)?;
        transaction.open_table(REVISION).map_err(disk)?;
        transaction.commit().map_err(disk)
    }

    fn read_now(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let transaction = self.database.begin_read().map_err(disk)?;
        let table = transaction.open_table(VALUES).map_err(disk)?;
        let found = table.get(key).map_err(disk)?;
        Ok(found.map(|guard| parse(guard.value())))
    }

    fn list_now(
        &self,
        prefix: &str,
        after: Option<&str>,
        bound: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        let transaction = self.database.begin_read().map_err(disk)?;
        let table = transaction.open_table(VALUES).map_err(disk)?;
        let mut listed = Vec::new();
        for entry in table.range(after.unwrap_or(prefix)..).map_err(disk)? {
            let (key, value) = entry.map_err(disk)?;
            if Some(key.value()) == after {
                continue;
            }
            if !key.value().starts_with(prefix) || listed.len() == bound.min(MAX_LIST) {
                break;
            }
            listed.push((key.value().to_owned(), parse(value.value())));
        }
        Ok(listed)
    }

    fn commit_now(&self, expects: &[Expect], writes: &[Write]) -> Result<Commit, StoreError> {
        within_bounds(expects, writes)?;
        let transaction = self.database.begin_write().map_err(disk)?;
        let revision = {
            let mut values = transaction.open_table(VALUES).map_err(disk)?;
            for expect in expects {
                let (key, wanted) = match expect {
                    Expect::Absent(key) => (key, None),
                    Expect::Revision(key, revision) => (key, Some(*revision)),
                };
                let found = values
                    .get(key.as_str())
                    .map_err(disk)?
                    .map(|guard| parse(guard.value()).revision);
                if found != wanted {
                    // Dropped without commit: nothing is written.
                    return Ok(Commit::Conflict);
                }
            }
            let mut counter = transaction.open_table(REVISION).map_err(disk)?;
            let revision = counter
                .get(())
                .map_err(disk)?
                .map_or(0, |guard| guard.value())
                + 1;
            counter.insert((), revision).map_err(disk)?;
            for write in writes {
                match write {
                    Write::Put(key, value) => {
                        let mut bytes = revision.to_le_bytes().to_vec();
                        bytes.extend_from_slice(value);
                        values
                            .insert(key.as_str(), bytes.as_slice())
                            .map_err(disk)?;
                    }
                    Write::Delete(key) => {
                        values.remove(key.as_str()).map_err(disk)?;
                    }
                }
            }
            revision
        };
        transaction.commit().map_err(disk)?;
        Ok(Commit::Committed { revision })
    }
}

impl Store for Embedded {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        // Answered from the page cache or one disk read: not worth a thread.
        Box::pin(async move { self.read_now(key) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(async move { self.list_now(prefix, after, bound) })
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        let store = self.clone();
        // fsync blocks, and a blocking task runs to its end even when nobody waits for it any more.
        let task = tokio::task::spawn_blocking(move || store.commit_now(&expects, &writes));
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Ended)) })
    }
}

fn parse(bytes: &[u8]) -> Versioned {
    let (revision, value) = bytes
        .split_first_chunk::<8>()
        .expect("every value was written with its revision");
    Versioned {
        revision: u64::from_le_bytes(*revision),
        value: value.to_vec(),
    }
}

fn disk(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Disk(error.into().to_string())
}
