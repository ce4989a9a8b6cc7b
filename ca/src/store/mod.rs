//! The shared memory of CA replicas: keys, values, compare-and-swap, watches and leases. `journal`
//! gives the values their meaning; `app` chooses the implementation.
//!
//! The interface is what an etcd transaction offers: every value carries the revision of the commit
//! that wrote it, and a commit holds only if all that it expects still is so. It is also what the
//! Kubernetes API can carry: a Secret whose `resourceVersion` is compared serialises the commits.
//!
//! Never: knows what a key means, retries a conflict, or answers from a cache.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub mod embedded;
pub mod etcd;
pub mod kubernetes;
mod queue;
mod watchers;

#[cfg(test)]
mod tests;

/// Longest key in bytes: our longest is `journal`'s, under 100; redb and etcd allow far more.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value in bytes: the deny list of an older store, 16,384 entries of 65 bytes in one record,
/// with some room; a foreign bundle of 16 roots is the longest that is written now, a fifth of it.
pub const MAX_VALUE_BYTES: usize = 1_200_000;
/// Most bytes in the keys and values of one commit: etcd refuses requests above 1.5 MiB.
pub const MAX_COMMIT_BYTES: usize = 1_400_000;
/// Most values that one `list` call returns; callers page with `after`.
pub const MAX_LIST: usize = 1024;
/// Most writes in one commit, and keys in one `read_many`: etcd's default limit of operations in a
/// transaction.
pub const MAX_WRITES: usize = 128;
/// Changes that one watcher may leave unread before its watch ends and it has to list again: a
/// second of issues at full speed.
pub const MAX_UNREAD_CHANGES: usize = 16 * 1024;

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
    /// The lease of this name is still the one with this fence.
    Held {
        name: String,
        fence: u64,
    },
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

/// One key after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// Of the commit, also if that deleted the key.
    pub revision: u64,
    /// None: deleted.
    pub now: Option<Versioned>,
}

/// What a watch yields. After an error it has ended: list again and watch from there.
pub type Changes = BoxStream<'static, Result<Change, StoreError>>;

/// The right to do something alone, until it is not renewed in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub holder: String,
    /// Differs each time that the lease changes hands; [`Expect::Held`] takes it.
    pub fence: u64,
    /// By what the implementation knows it again.
    pub(crate) handle: i64,
}

impl Lease {
    /// The expectation that it still is held.
    pub fn held(&self) -> Expect {
        Expect::Held { name: self.name.clone(), fence: self.fence }
    }
}

/// Keys with compare-and-swap. All methods are safe to call from several tasks at once.
pub trait Store: Send + Sync + 'static {
    /// The value under `key` now.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// The values under `keys` (at most [`MAX_WRITES`]), in their order, all at one instant.
    fn read_many<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Versioned>>, StoreError>>;

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
    /// The commit happens to its end even if the returned future is dropped. An error of a store
    /// that is elsewhere may hide that it did happen: read again before you decide.
    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>>;

    /// The revision of the latest commit: whoever watches after it and then lists misses nothing.
    fn revision(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Every change to a key that starts with `prefix`, made by commits after the revision `after`,
    /// in their order. The watch is in place when this resolves; it fails or ends with
    /// [`StoreError::Behind`] if `after` is too long ago or its reader too slow.
    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Changes, StoreError>>;

    /// The lease `name`, unless somebody else holds it; it is lost `ttl` after the last `keep`. Who
    /// holds it and asks again gets it with a new fence.
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreError>>;

    /// Renews a lease; false if it is lost.
    fn keep<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Gives a lease back before its time. One that was lost is nothing.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Lets go of what others wait for, whoever still holds this store. What is being committed is
    /// committed; from then on everything may be refused. A store that nobody waits for does nothing.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Why the store could not answer. The blame is in the variant.
#[derive(Clone, Debug, thiserror::Error)]
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
    #[error(
        "the store {path} is damaged: {why}; nothing is served from it: restore a backup of the data directory"
    )]
    Damaged { path: String, why: String },
    #[error("cannot open the store {path}: {cause}")]
    Open { path: String, cause: Arc<io::Error> },
    /// The network, or the cluster: nobody answered in time.
    #[error(
        "{what}: none of {members} etcd endpoints answered in time, the last said: {last}; check etcd's health, the network, and that etcd accepts --etcd-cert: then it goes on by itself"
    )]
    Unreachable { what: &'static str, members: usize, last: String },
    /// The cluster's configuration or ours.
    #[error(
        "etcd does not let us in: {0}; the user of --etcd-cert needs readwrite on everything under --etcd-prefix"
    )]
    Denied(String),
    #[error(
        "etcd is full: {0}; compact and defragment it or raise its quota, then run etcdctl alarm disarm: it goes on by itself"
    )]
    Full(String),
    #[error("etcd refuses the request: {0}; is it version 3.4 or newer, with its default limits?")]
    Refused(String),
    #[error("{flag}: {why}; name PEM files that etcd's operator gave you")]
    Tls { flag: &'static str, why: String },
    /// Load: more than the disk, or the API server, takes.
    #[error(
        "{0} commits wait to be written already; it goes on by itself when they are, a faster disk (or API server) helps"
    )]
    Busy(usize),
    /// The reader of a watch, or one that resumes too late.
    #[error(
        "the watch fell behind: what changed after revision {0} is not kept any more; list again and watch from there"
    )]
    Behind(u64),
    /// Us: a caller broke a bound of this room.
    #[error("{what} has {found} but the bound is {bound}")]
    Bound { what: &'static str, found: usize, bound: usize },
    /// The network, or the cluster: the API server did not answer in time.
    #[error(
        "{what}: the Kubernetes API gave no good answer in time, the last said: {last}; check the API server and the network: then it goes on by itself"
    )]
    KubernetesUnreachable { what: &'static str, last: String },
    /// The cluster's roles, or ours.
    #[error(
        "the Kubernetes API does not let us in: {0}; the service account needs the role of docs/operate/kubernetes-store.md"
    )]
    KubernetesDenied(String),
    #[error(
        "the Kubernetes API refuses a request of ours: {0}; is an admission policy in its way?"
    )]
    KubernetesRefused(String),
    #[error(
        "the store in Kubernetes is full: {found} bytes of at most {bound}; revoke or wait for what has ended, or move to etcd"
    )]
    KubernetesFull { found: usize, bound: usize },
    #[error(
        "the store in Kubernetes is not what it should be: {0}; if its Secrets were changed by hand, restore them all from one backup with every replica stopped"
    )]
    KubernetesState(String),
    #[error("the store's worker ended before it answered; the process is shutting down")]
    Ended,
}

/// Checks the bounds that every implementation owes to the next one.
pub(crate) fn within_bounds(expects: &[Expect], writes: &[Write]) -> Result<(), StoreError> {
    bounded("a commit's expectations", expects.len(), MAX_WRITES)?;
    bounded("a commit's writes", writes.len(), MAX_WRITES)?;
    let mut bytes = 0;
    for (at, write) in writes.iter().enumerate() {
        let value = if let Write::Put(_, value) = write { value.len() } else { 0 };
        bounded("a key", write.key().len(), MAX_KEY_BYTES)?;
        bounded("a value", value, MAX_VALUE_BYTES)?;
        bytes += write.key().len() + value;
        // etcd refuses a transaction that writes a key twice.
        let before = writes[..at].iter().filter(|before| before.key() == write.key()).count();
        bounded("the writes of one key", before + 1, 1)?;
    }
    bounded("a commit's bytes", bytes, MAX_COMMIT_BYTES)
}

impl Write {
    fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Of key and value.
    fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

fn bounded(what: &'static str, found: usize, bound: usize) -> Result<(), StoreError> {
    if found > bound { Err(StoreError::Bound { what, found, bound }) } else { Ok(()) }
}
