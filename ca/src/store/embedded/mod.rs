//! The store of a single machine: one redb file in the data directory. Opened by `app`.
//!
//! redb commits are copy-on-write and fsynced before they return, so `kill -9` at any instruction
//! leaves the last commit or the one before it, never half of one. The file is locked: one process
//! at a time, so that watches and leases can live in its memory.
//!
//! Never: weakens durability, or holds a lock across an await.

// SPDX-License-Identifier: Apache-2.0

use std::fs::OpenOptions;
use std::io::ErrorKind::UnexpectedEof;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use redb::{Database, DatabaseError, StorageError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{
    Changes, Commit, Expect, Lease, MAX_WRITES, Store, StoreError, Versioned, Write, bounded,
    within_bounds,
};

mod leases;

mod tables;

use super::queue::{Place, Queue, Waiting};
use super::watchers::Watchers;
use leases::Leases;

/// Page cache, most of it for what is read: a mesh of 10,000 workloads has about 20 MB of live records,
/// and a first issue reads where nobody has read lately.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// How long a group gathers, once several callers were seen to write at the same time. Much of what a
/// group costs is the same for two commits and for fifty (a sync, the upper pages of the tree), and
/// what a caller waits here is less than it waits for the disk.
const GATHERING: Duration = Duration::from_millis(3);
/// Between two tries to open the file anew: each reads all of it, and a disk that is full stays so
/// for longer.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// A store with 100,000 live SVIDs has 600 MB; the kernel lets go of what it has better use for.
const READ_AHEAD_BYTES: i64 = 1024 * 1024 * 1024;

/// The redb file. Clones share it.
#[derive(Clone)]
pub struct Embedded {
    file: Arc<File>,
}

struct File {
    path: PathBuf,
    open: RwLock<Open>,
    queue: Queue,
    watchers: Watchers,
    leases: Leases,
}

/// redb refuses everything after a failed write until it is opened anew; the round tells two
/// callers that saw the same failure from one another.
struct Open {
    database: Option<Database>,
    round: u64,
    /// For good: nothing opens it again.
    closed: bool,
    /// When it could not be opened anew, and why.
    failed: Option<(Instant, StoreError)>,
}

impl Embedded {
    /// Opens or creates the file, which is readable by its owner only from its first instant.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let cause =
            |cause| StoreError::Open { path: path.display().to_string(), cause: Arc::new(cause) };
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(cause)?;
        let database = whole(path, open_database(path)?)?;
        let watchers = Watchers::new(tables::revision(&database).map_err(disk)?);
        let open = Open { database: Some(database), round: 0, closed: false, failed: None };
        let open = RwLock::new(open);
        let (queue, leases) = (Queue::default(), Leases::default());
        Ok(Self { file: Arc::new(File { path: path.to_owned(), open, queue, watchers, leases }) })
    }

    /// Reads: from the page cache or by one disk read, which is not worth a thread. Only where the
    /// file must be opened anew first, a thread waits for it.
    async fn look<T: Send + 'static>(
        &self,
        act: impl Fn(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let at_once =
            self.file.open.try_read().ok().and_then(|open| open.database.as_ref().map(&act));
        match at_once {
            Some(Err(redb::Error::PreviousIo)) | None => {
                let store = self.clone();
                let looked = tokio::task::spawn_blocking(move || store.with(act));
                looked.await.unwrap_or(Err(StoreError::Ended))
            }
            Some(done) => done.map_err(disk),
        }
    }

    /// Does one thing with the database; if an earlier failure of the disk has closed it, opens it
    /// anew first. Blocks.
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
            self.reopen(&mut open)?;
        }
        match &open.database {
            Some(database) => act(database).map_err(disk),
            None => Err(StoreError::Ended),
        }
    }

    /// Opens the file anew. redb repairs it by its checksums where it must; what a start asks
    /// beyond that would keep everybody waiting.
    fn reopen(&self, open: &mut Open) -> Result<(), StoreError> {
        if open.closed {
            return Err(StoreError::Ended);
        }
        if let Some((at, error)) = &open.failed
            && at.elapsed() < REOPEN_PAUSE
        {
            return Err(error.clone());
        }
        // Dropped first: the old one holds the file's lock.
        open.database = None;
        let opened = open_database(&self.file.path).and_then(|database| {
            tables::make(&database).map_err(disk)?;
            self.file.watchers.reopened(tables::revision(&database).map_err(disk)?);
            Ok(database)
        });
        open.failed = opened.as_ref().err().map(|error| (Instant::now(), error.clone()));
        open.database = Some(opened?);
        open.round += 1;
        Ok(())
    }

    /// Writes what waits, group after group, until nothing waits any more. Whoever is alone is never
    /// kept waiting; where several come, the next group gathers for a moment.
    fn write_all(&self) {
        let mut alone = true;
        loop {
            if !alone && !self.file.queue.fills_a_group() {
                std::thread::sleep(GATHERING);
            }
            let Some(group) = self.file.queue.next_group() else { return };
            alone = group.len() == 1;
            let held = |name: &str, fence| self.file.leases.holds(name, fence);
            let done = self.with(|database| tables::commit_group(database, &group, &held));
            match done {
                Ok(verdicts) => {
                    for (waiting, verdict) in group.into_iter().zip(verdicts) {
                        if let Commit::Committed { revision } = verdict {
                            self.file.watchers.publish(revision, waiting.writes);
                        }
                        // Whoever asked may have gone; what was committed stays so.
                        let _ = waiting.told.send(Ok(verdict));
                    }
                }
                Err(error) => {
                    for waiting in group {
                        let _ = waiting.told.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    refuse_marked(path)?;
    read_ahead(path);
    let opened = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path);
    opened.map_err(|error| unopened(path, error))
}

/// Why the file cannot be used: somebody has it, it is damaged, or the disk fails.
fn unopened(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::HeldElsewhere(path.display().to_string()),
        DatabaseError::Storage(StorageError::Corrupted(why)) => damaged(path, &why),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == UnexpectedEof => {
            damaged(path, "it is shorter than it was")
        }
        other => disk(other.into()),
    }
}

/// Reads every page: for a start, which comes after who knows what.
fn whole(path: &Path, mut database: Database) -> Result<Database, StoreError> {
    // What a crash left is repaired by now; what does not fit its checksum after that has rotted.
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => return Err(damaged(path, "pages do not fit their checksums")),
        Err(error) => return Err(unopened(path, error)),
    }
    // Not before: a write into a file that was cut short fails as if the disk had.
    tables::make(&database).map_err(disk)?;
    Ok(database)
}

/// All of the file is looked at below, in the order of its trees, a page at a time. After a reboot that
/// is a hundred thousand reads from all over the disk, unless it was read in its own order before.
fn read_ahead(path: &Path) {
    let Ok(file) = OpenOptions::new().read(true).open(path) else { return };
    // It is advice: what is not taken costs time only.
    let _ = posix_fadvise(&file, 0, READ_AHEAD_BYTES, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
}

/// Says that the file is damaged, and marks it: redb may go back to an older commit that is whole,
/// and a later start must not take that for the truth.
fn damaged(path: &Path, why: &str) -> StoreError {
    let path = path.display().to_string();
    if let Err(error) = std::fs::write(marker(&path), why) {
        tracing::error!(%error, path, "cannot mark the damaged store");
    }
    StoreError::Damaged { path, why: why.to_owned() }
}

fn refuse_marked(path: &Path) -> Result<(), StoreError> {
    let path = path.display().to_string();
    let marker = marker(&path);
    if Path::new(&marker).exists() {
        let why = format!("an earlier start found so; if it is restored, remove {marker}");
        return Err(StoreError::Damaged { path, why });
    }
    Ok(())
}

fn marker(path: &str) -> String {
    format!("{path}.damaged")
}

impl Store for Embedded {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        let key = key.to_owned();
        Box::pin(self.look(move |database| tables::read(database, &key)))
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Versioned>>, StoreError>> {
        Box::pin(async move {
            bounded("a reading", keys.len(), MAX_WRITES)?;
            let keys = keys.to_vec();
            self.look(move |database| tables::read_many(database, &keys)).await
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(
            self.look(move |database| tables::list(database, &prefix, after.as_deref(), bound)),
        )
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        let (told, verdict) = oneshot::channel();
        let place = within_bounds(&expects, &writes)
            .and_then(|()| self.file.queue.enter(Waiting { expects, writes, told }));
        match place {
            Err(error) => return Box::pin(async move { Err(error) }),
            Ok(Place::Behind) => {}
            Ok(Place::First) => {
                let store = self.clone();
                // fsync blocks, and a blocking task runs to its end even when nobody waits for it
                // any more.
                tokio::task::spawn_blocking(move || store.write_all());
            }
        }
        Box::pin(async move { verdict.await.unwrap_or(Err(StoreError::Ended)) })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.look(tables::revision))
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        Box::pin(async move { self.file.watchers.watch(prefix, after) })
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(async move { self.file.leases.acquire(name, holder, ttl) })
    }

    fn keep<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.file.leases.keep(lease)) })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.file.leases.release(lease);
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let store = self.clone();
        let closed = tokio::task::spawn_blocking(move || {
            // Waits for the group that is being written.
            let mut open = store.file.open.write().unwrap_or_else(PoisonError::into_inner);
            open.closed = true;
            open.database = None;
        });
        Box::pin(async move {
            if closed.await.is_err() {
                tracing::error!("the store was not closed; it is with the process");
            }
        })
    }
}

fn disk(error: redb::Error) -> StoreError {
    StoreError::Disk(error.to_string())
}
