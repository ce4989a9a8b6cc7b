//! The shared memory of CA replicas: keys, values, and compare-and-swap. `journal` gives the values
//! their meaning; `app` chooses the implementation.
//!
//! The interface is what an etcd transaction offers, so that a store for a fleet of machines fits
//! behind it without a change above: every value carries the revision of the commit that wrote it,
//! and a commit holds only if all that it expects still is so.
//!
//! Never: knows what a key means, retries a conflict, or answers from a cache.

// SPDX-License-Identifier: Apache-2.0

use std::io;

use futures_util::future::BoxFuture;

pub mod embedded;

#[cfg(test)]
mod conformance;

/// Longest key in bytes: our longest is `journal`'s, under 100; redb and etcd allow far more.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value in bytes: etcd refuses requests above 1.5 MiB, and one commit holds several
/// values.
pub const MAX_VALUE_BYTES: usize = 256 * 1024;
/// Most values that one `list` call returns; callers page with `after`.
pub const MAX_LIST: usize = 1024;
/// Most writes in one commit: etcd's default limit of operations in a transaction.
pub const MAX_WRITES: usize = 128;

/// A value and the revision of the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub revision: u64,
    pub value: Vec<u8>,
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent(String),
    /// The key was last written by the commit with this revision.
    Revision(String, u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(String, Vec<u8>),
    Delete(String),
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// On disk. All values of this commit carry this revision.
    Committed { revision: u64 },
    /// Some expectation no longer holds; nothing was written.
    Conflict,
}

/// Keys with compare-and-swap. All methods are safe to call from several tasks at once.
pub trait Store: Send + Sync + 'static {
    /// The value under `key` now.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// The first `bound` (at most [`MAX_LIST`]) keys in order that start with `prefix` and come
    /// after `after`.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>>;

    /// All of `writes` at once and durably if every expectation holds, else nothing.
    ///
    /// The commit happens to its end even if the returned future is dropped.
    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>>;
}

/// Why the store could not answer. The blame is in the variant.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The machine: disk full, disk broken, file system read-only.
    #[error(
        "the store failed: {0}; free or repair the disk that holds the data directory, then it goes on by itself"
    )]
    Disk(String),
    #[error(
        "another process holds {0}; stop the other myelin-ca, or use its admin socket in the same data directory"
    )]
    HeldElsewhere(String),
    #[error("cannot open the store {path}: {cause}")]
    Open { path: String, cause: io::Error },
    /// Us: a caller broke a bound of this room.
    #[error("{what} has {found} but the bound is {bound}")]
    Bound { what: &'static str, found: usize, bound: usize },
    #[error("the store's worker ended before it answered; the process is shutting down")]
    Ended,
}

/// Checks the bounds that every implementation owes to the next one.
pub(crate) fn within_bounds(expects: &[Expect], writes: &[Write]) -> Result<(), StoreError> {
    let bounded = |what, found, bound| {
        if found > bound { Err(StoreError::Bound { what, found, bound }) } else { Ok(()) }
    };
    bounded("a commit's expectations", expects.len(), MAX_WRITES)?;
    bounded("a commit's writes", writes.len(), MAX_WRITES)?;
    for write in writes {
        match write {
            Write::Put(key, value) => {
                bounded("a key", key.len(), MAX_KEY_BYTES)?;
                bounded("a value", value.len(), MAX_VALUE_BYTES)?;
            }
            Write::Delete(key) => bounded("a key", key.len(), MAX_KEY_BYTES)?,
        }
    }
    Ok(())
}
