//! What readers of the issuing log see, while its sequencer appends: the newest checkpoint, what
//! witnesses added to it, the files below it.
//!
//! Never: appends.

// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use myelin_identity::log::{
    Checkpoint, Hash, Inclusion, LogKey, Node, Resource, consistency_proof, inclusion_proof,
    leaf_hash, node_in_tile, tile_holding, verify_inclusion,
};
use tokio::sync::Notify;

use super::LogError;
use super::disk::Disk;
use super::edge::Missing;
use super::sequencer::lost;
use super::witness::{Cosigned, Cosigning, State, Witnessed, Witnesses};
use crate::metrics::LogMetrics;

/// A state of the log that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub size: u64,
    pub root: Hash,
    /// The signed note, with the cosignatures that there are.
    pub note: Bytes,
    /// How many those are.
    pub cosignatures: usize,
    /// The note by the log alone.
    signed: Bytes,
}

impl Published {
    pub(super) fn signed(size: u64, root: Hash, note: Bytes) -> Self {
        Self { size, root, signed: note.clone(), note, cosignatures: 0 }
    }

    fn state(&self, origin: &str) -> State {
        let checkpoint = Checkpoint { origin: origin.to_owned(), size: self.size, root: self.root };
        State::of(&checkpoint, self.signed.clone())
    }
}

pub(super) struct Shared {
    key: LogKey,
    pub(super) disk: Disk,
    published: ArcSwap<Published>,
    /// The newest that has the quorum of cosignatures.
    witnessed: ArcSwapOption<Published>,
    cosigning: OnceLock<Cosigning>,
    metrics: OnceLock<LogMetrics>,
    /// Writes of the checkpoint's file come one after another, each of the newest.
    showing: Mutex<()>,
    closing: Notify,
    closed: AtomicBool,
}

impl Shared {
    pub(super) fn new(key: LogKey, disk: Disk, published: Published) -> Self {
        Self {
            key,
            disk,
            published: ArcSwap::from_pointee(published),
            witnessed: ArcSwapOption::empty(),
            cosigning: OnceLock::new(),
            metrics: OnceLock::new(),
            showing: Mutex::new(()),
            closing: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn key(&self) -> &LogKey {
        &self.key
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_one();
    }

    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    pub(super) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// From now on witnesses are asked about each checkpoint, this one first.
    pub(super) fn ask(self: &Arc<Self>, witnesses: &Witnesses, metrics: &LogMetrics) {
        let weak: Weak<dyn Witnessed> = Arc::downgrade(&(self.clone() as Arc<dyn Witnessed>));
        let cosigning = Cosigning::start(&weak, witnesses, metrics);
        let published = self.published();
        // Nobody has anything to say about a log that is empty.
        if published.size > 0 {
            cosigning.want(published.state(self.key.name()));
        }
        let _ = self.metrics.set(metrics.clone());
        // Whoever asks twice keeps the first ones.
        let _ = self.cosigning.set(cosigning);
    }

    /// Takes over a new state.
    pub(super) fn publish(&self, published: Arc<Published>) {
        self.published.store(published.clone());
        if let Some(cosigning) = self.cosigning.get() {
            cosigning.want(published.state(self.key.name()));
        }
    }

    /// Puts the newest checkpoint where static servers look for it.
    pub(super) fn show(&self) {
        let _one = self.showing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.disk.publish(&self.published().note) {
            // The server itself answers from memory; a copy for a static server comes later.
            tracing::warn!(%error, "cannot write the checkpoint file");
        }
    }

    /// The newest checkpoint with as many cosignatures as must be there.
    pub(super) async fn witness(&self) -> Result<Bytes, LogError> {
        let published = self.published();
        let Some(cosigning) = self.cosigning.get().filter(|cosigning| cosigning.quorum() > 0)
        else {
            return Ok(published.note.clone());
        };
        if published.cosignatures >= cosigning.quorum() {
            return Ok(published.note.clone());
        }
        let state = published.state(self.key.name());
        cosigning.want(state.clone());
        // Whoever appends waits for it, so there is no newer one.
        let missing = LogError::Unwitnessed { found: 0, required: cosigning.quorum() };
        let cosigned = cosigning.quorum_on(&state).await?.ok_or(missing)?;
        let note = cosigned.note.clone();
        self.take(cosigned);
        Ok(note)
    }

    /// Puts cosignatures below the checkpoint, if it still is the newest.
    fn take(&self, cosigned: Cosigned) {
        let Cosigned { size, note, count } = cosigned;
        let quorum = self.cosigning.get().map_or(0, Cosigning::quorum);
        self.published.rcu(|now| {
            if now.size != size || now.cosignatures >= count {
                return now.clone();
            }
            let now = Published::clone(now);
            Arc::new(Published { note: note.clone(), cosignatures: count, ..now })
        });
        let now = self.published();
        if now.cosignatures >= quorum.max(1) {
            if let Some(metrics) = self.metrics.get() {
                metrics.witnessed_entries.set(i64::try_from(now.size).unwrap_or(i64::MAX));
            }
            self.witnessed.store(Some(now));
        }
    }

    /// What proofs are made under.
    fn provable(&self) -> Result<Arc<Published>, LogError> {
        let quorum = self.cosigning.get().map_or(0, Cosigning::quorum);
        let published = self.published();
        if published.cosignatures >= quorum {
            return Ok(published);
        }
        let (found, required) = (published.cosignatures, quorum);
        self.witnessed.load_full().ok_or(LogError::Unwitnessed { found, required })
    }

    /// Proves from the files, and sees that the proof holds: nothing damaged leaves.
    pub(super) fn prove(&self, index: u64, entry: &[u8]) -> Result<Inclusion, LogError> {
        let published = self.provable()?;
        let size = published.size;
        let missing = LogError::NoSuchEntry { index, size };
        let path = inclusion_proof(index, size, |node| read(&self.disk, node, size));
        let path = path.unwrap_or(Err(missing))?;
        if !verify_inclusion(&leaf_hash(entry), index, size, &path, &published.root) {
            let what = format!("proof of entry {index}");
            let why = "the tiles do not lead from it to the signed root".to_owned();
            return Err(LogError::Damaged { what, why });
        }
        Ok(Inclusion { index, path, checkpoint: published.note.to_vec() })
    }

    pub(super) fn read(&self, resource: Resource) -> Result<Option<Bytes>, LogError> {
        let published = self.published();
        if resource == Resource::Checkpoint {
            return Ok(Some(published.note.clone()));
        }
        if !resource.exists_at(published.size) {
            return Ok(None);
        }
        let bytes = self.disk.read(resource).map_err(|error| LogError::Disk(error.to_string()))?;
        Ok(bytes.map(Bytes::from))
    }
}

impl Witnessed for Shared {
    fn consistency(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Hash>, LogError>> {
        let disk = self.disk.clone();
        let proof = tokio::task::spawn_blocking(move || {
            let proof = consistency_proof(from, to, |node| read(&disk, node, to));
            proof.unwrap_or(Err(LogError::NoSuchEntry { index: from, size: to }))
        });
        Box::pin(async move { proof.await.unwrap_or(Err(LogError::Ended)) })
    }

    fn newest(&self) -> BoxFuture<'_, Result<State, LogError>> {
        Box::pin(async { Ok(self.published().state(self.key.name())) })
    }

    fn cosigned(self: Arc<Self>, cosigned: Cosigned) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.take(cosigned);
            // What is closed may be open elsewhere already, and further on.
            if !self.closed.load(Ordering::Acquire) {
                let _ = tokio::task::spawn_blocking(move || self.show()).await;
            }
        })
    }
}

fn read(disk: &Disk, node: Node, size: u64) -> Result<Hash, LogError> {
    let tile = tile_holding(node, size).ok_or_else(|| lost(&Missing(node)))?;
    node_in_tile(node, &disk.tile(tile)?).ok_or_else(|| lost(&Missing(node)))
}
