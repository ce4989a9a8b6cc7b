//! The store of several replicas in a Kubernetes cluster: its API server, and in it a few Secrets.
//!
//! One Secret, the *head*, is the store's only point of agreement: it holds the revision, the latest
//! commits, and the names of the *segments* behind it, each a Secret of entries, which together are a
//! log. A commit is one write of the head with its `resourceVersion`; commits that come together
//! share it. When the head grows long, its oldest commits move into the last segment: that is
//! written first, and the head that counts on it after, so whoever is killed between any two requests
//! leaves nothing to finish or to repair. The log is cleaned from its oldest end.
//!
//! Each replica holds all of it in memory. A read first asks for the head's `resourceVersion` (its
//! metadata, from etcd through the API server), for all who read at that moment at once, and if it
//! is another one, reads what is new: so it is as fresh as a read of etcd. Replicas hear of
//! one another's commits by a watch of the head.
//!
//! What it costs: a commit, one PUT of up to 64 KiB, beside what it writes; every fifteen issues or
//! so a GET and a PUT of a segment, and a PUT of the head; a read, one GET of metadata. Replicas
//! that commit at the same moment meet in conflicts, of which one wins each time.
//!
//! Who may write these Secrets may issue, by a token or an entry of his own making: the roles in the
//! namespace are what keeps others out, and nothing in here does.
//!
//! Never: deletes a Secret, or reads one that is not named in its role.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::queue::{Place, Queue, Waiting};
use super::{
    Changes, Commit, Expect, Lease, MAX_WRITES, Store, StoreError, Versioned, Write, bounded,
    within_bounds,
};

mod client;
mod commit;
mod leases;
mod long;
mod mirror;
mod segments;
mod shape;
mod state;
mod values;

use client::Secrets;
use leases::Held;
use state::{FIRST_WAIT, State};

/// Between two tries to watch, while the API server is away; reads and commits try by themselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The Secrets of one store. Clones share what is known of them.
#[derive(Clone)]
pub struct Kubernetes {
    inner: Arc<Inner>,
    _following: Arc<Following>,
}

struct Inner {
    state: Arc<State>,
    queue: Queue,
    held: Held,
    nonces: AtomicU64,
    /// Itself, for the task that writes.
    this: std::sync::Weak<Self>,
}

struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubernetes {
    /// Reads everything that is stored in this namespace under this name.
    pub async fn open(
        client: kube::Client,
        namespace: &str,
        name: &str,
    ) -> Result<Self, StoreError> {
        let store = Self::open_unswept(client, namespace, name).await?;
        store.inner.sweep_parts().await?;
        Ok(store)
    }

    /// With whatever a crash left.
    pub(super) async fn open_unswept(
        client: kube::Client,
        namespace: &str,
        name: &str,
    ) -> Result<Self, StoreError> {
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed)
            .map_err(|_| StoreError::KubernetesState("no random bytes".to_owned()))?;
        let state = Arc::new(State::open(Secrets::new(client, namespace, name)).await?);
        let following = Arc::new(Following(tokio::spawn(follow(Arc::clone(&state)))));
        let nonces = AtomicU64::new(u64::from_le_bytes(seed));
        let (queue, held) = (Queue::default(), Held::default());
        let inner = Arc::new_cyclic(|this| Inner {
            state,
            queue,
            held,
            nonces,
            this: std::sync::Weak::clone(this),
        });
        Ok(Self { inner, _following: following })
    }
}

#[cfg(test)]
impl Kubernetes {
    /// How many parts of long values rest there.
    pub(crate) fn parts(&self) -> usize {
        self.inner.state.mirror().keys(values::PARTS).count()
    }

    /// How many values in parts are not named by anything yet.
    pub(crate) fn unnamed(&self) -> usize {
        self.inner.state.mirror().keys(values::MARKERS).count()
    }

    /// As if somebody had written the Secrets by hand.
    pub(crate) async fn lose_a_part(&self) {
        let part = self.inner.state.mirror().keys(values::PARTS).next().cloned();
        let lost = vec![Write::Delete(part.expect("some value rests in parts"))];
        let _ = self.inner.enqueue(Vec::new(), lost).await.expect("it is written");
    }
}

/// Hears of what other replicas commit. Its news are a convenience to watchers: nothing is decided
/// by them.
async fn follow(state: Arc<State>) {
    let mut pause = FIRST_WAIT;
    loop {
        let version = state.mirror().version.clone();
        let mut lost = None;
        match state.secrets.watch_head(&version).await {
            Ok(mut heads) => {
                while let Some(next) = heads.next().await {
                    let followed = match next {
                        Ok((head, version)) => state.follow(head, version).await,
                        Err(failure) => Err(failure),
                    };
                    if let Err(failure) = followed {
                        lost = Some(failure);
                        break;
                    }
                    pause = FIRST_WAIT;
                }
            }
            Err(failure) => lost = Some(failure),
        }
        if let Some(failure) = lost {
            tracing::debug!(?failure, "the watch of the store in Kubernetes begins anew");
        }
        if state.renew().await.is_err() {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tokio::time::sleep(pause).await;
    }
}

impl Inner {
    /// A number that nobody else has.
    fn nonce(&self) -> u64 {
        self.nonces.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// A commit in stored keys and values. It happens to its end even if nobody waits for it.
    fn enqueue(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        let (told, verdict) = oneshot::channel();
        match self.queue.enter(Waiting { expects, writes, told }) {
            Err(error) => return Box::pin(async move { Err(error) }),
            Ok(Place::Behind) => {}
            Ok(Place::First) => {
                if let Some(this) = self.this.upgrade() {
                    tokio::spawn(commit::write_all(this));
                }
            }
        }
        Box::pin(async move { verdict.await.unwrap_or(Err(StoreError::Ended)) })
    }
}

/// The same with the key as it is stored.
fn stored(expect: Expect) -> Expect {
    match expect {
        Expect::Absent(key) => Expect::Absent(values::record(&key)),
        Expect::Revision(key, revision) => Expect::Revision(values::record(&key), revision),
        held @ Expect::Held { .. } => held,
    }
}

fn resting(write: Write) -> Write {
    match write {
        Write::Put(key, value) => Write::Put(values::record(&key), values::resting(&value)),
        Write::Delete(key) => Write::Delete(values::record(&key)),
    }
}

impl Store for Kubernetes {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move {
            self.inner.state.fresh().await?;
            self.inner.state.mirror().read(&values::record(key))
        })
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Versioned>>, StoreError>> {
        Box::pin(async move {
            bounded("a reading", keys.len(), MAX_WRITES)?;
            self.inner.state.fresh().await?;
            let mirror = self.inner.state.mirror();
            keys.iter().map(|key| mirror.read(&values::record(key))).collect()
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(async move {
            self.inner.state.fresh().await?;
            let (prefix, after) = (values::record(prefix), after.map(values::record));
            let listed = self.inner.state.mirror().list(&prefix, after.as_deref(), bound)?;
            let ours = |key: String| key[values::RECORDS.len()..].to_owned();
            Ok(listed.into_iter().map(|(key, value)| (ours(key), value)).collect())
        })
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        if let Err(error) = within_bounds(&expects, &writes) {
            return Box::pin(async move { Err(error) });
        }
        let expects: Vec<Expect> = expects.into_iter().map(stored).collect();
        let writes: Vec<Write> = writes.into_iter().map(resting).collect();
        if writes.iter().map(Write::bytes).sum::<usize>() <= long::SHORT_COMMIT_BYTES {
            return self.inner.enqueue(expects, writes);
        }
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.commit_long(&expects, &writes).await });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Ended)) })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.inner.state.fresh().await?;
            Ok(self.inner.state.mirror().head.revision)
        })
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        Box::pin(async move { self.inner.state.watchers.watch(prefix, after) })
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(self.inner.acquire(name, holder, ttl))
    }

    fn keep<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.inner.keep(lease))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.inner.release(lease))
    }
}
