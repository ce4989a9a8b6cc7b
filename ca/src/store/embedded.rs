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
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

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
    file: Arc<File>,
}

struct File {
    path: PathBuf,
    open: RwLock<Open>,
}

/// redb refuses everything after a failed write until it is opened anew; the round tells two
/// callers that saw the same failure from one another.
struct Open {
    database: Option<Database>,
    round: u64,
}

impl Embedded {
    /// Opens or creates the file, which is readable by its owner only from its first instant.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let cause = |cause| StoreError::Open { path: path.display().to_string(), cause };
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(cause)?;
        let open = RwLock::new(Open { database: Some(open_database(path)?), round: 0 });
        Ok(Self { file: Arc::new(File { path: path.to_owned(), open }) })
    }

    /// Does one thing with the database; if an earlier failure of the disk has closed it, opens it
    /// anew first.
    fn with<T>(&self, act: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let failed_round = {
            let open = self.file.open.read().unwrap_or_else(PoisonError::into_inner);
            match open.database.as_ref().map(&act) {
                Some(Err(redb::Error::PreviousIo)) | None => open.round,
                Some(done) => return done.map_err(disk),
            }
        };
        let mut open = self.file.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.round == failed_round || open.database.is_none() {
            // Dropped first: the old one holds the file's lock.
            open.database = None;
            open.database = Some(open_database(&self.file.path)?);
            open.round += 1;
        }
        match &open.database {
            Some(database) => act(database).map_err(disk),
            None => Err(StoreError::Ended),
        }
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let opened = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path);
    let database = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::HeldElsewhere(path.display().to_string()),
        other => disk(other.into()),
    })?;
    make_tables(&database).map_err(disk)?;
    Ok(database)
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(REVISION)?;
    Ok(transaction.commit()?)
}

fn read_now(database: &Database, key: &str) -> Result<Option<Versioned>, redb::Error> {
    let table = database.begin_read()?.open_table(VALUES)?;
    Ok(table.get(key)?.map(|guard| parse(guard.value())))
}

fn list_now(
    database: &Database,
    prefix: &str,
    after: Option<&str>,
    bound: usize,
) -> Result<Vec<(String, Versioned)>, redb::Error> {
    let table = database.begin_read()?.open_table(VALUES)?;
    let mut listed = Vec::new();
    for entry in table.range(after.unwrap_or(prefix)..)? {
        let (key, value) = entry?;
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

fn commit_now(
    database: &Database,
    expects: &[Expect],
    writes: &[Write],
) -> Result<Commit, redb::Error> {
    let transaction = database.begin_write()?;
    let revision = {
        let mut values = transaction.open_table(VALUES)?;
        for expect in expects {
            let (key, wanted) = match expect {
                Expect::Absent(key) => (key, None),
                Expect::Revision(key, revision) => (key, Some(*revision)),
            };
            let found = values.get(key.as_str())?.map(|guard| parse(guard.value()).revision);
            if found != wanted {
                // Dropped without commit: nothing is written.
                return Ok(Commit::Conflict);
            }
        }
        let mut counter = transaction.open_table(REVISION)?;
        let revision = counter.get(())?.map_or(0, |guard| guard.value()) + 1;
        counter.insert((), revision)?;
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let mut bytes = revision.to_le_bytes().to_vec();
                    bytes.extend_from_slice(value);
                    values.insert(key.as_str(), bytes.as_slice())?;
                }
                Write::Delete(key) => {
                    values.remove(key.as_str())?;
                }
            }
        }
        revision
    };
    transaction.commit()?;
    Ok(Commit::Committed { revision })
}

impl Store for Embedded {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        // Answered from the page cache or one disk read: not worth a thread.
        Box::pin(async move { self.with(|database| read_now(database, key)) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(async move { self.with(|database| list_now(database, prefix, after, bound)) })
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        let store = self.clone();
        // fsync blocks, and a blocking task runs to its end even when nobody waits for it any more.
        let task = tokio::task::spawn_blocking(move || {
            within_bounds(&expects, &writes)?;
            store.with(|database| commit_now(database, &expects, &writes))
        });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Ended)) })
    }
}

fn parse(bytes: &[u8]) -> Versioned {
    let (revision, value) =
        bytes.split_first_chunk::<8>().expect("every value was written with its revision");
    Versioned { revision: u64::from_le_bytes(*revision), value: value.to_vec() }
}

fn disk(error: redb::Error) -> StoreError {
    StoreError::Disk(error.to_string())
}
