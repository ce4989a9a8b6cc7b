//! The root's log: every intermediate is in it before it signs. It has as many entries as there were
//! intermediates, lies whole in the store, and grows by compare-and-swap, so that replicas share it.
//!
//! Never: an SVID, or a signature on what is not committed.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use myelin_identity::log::{
    Checkpoint, Entry, Frontier, Hash, Inclusion, LogKey, Node, Resource, TILE_WIDTH, Tile,
    consistency_proof, encode_bundle, entry_of, inclusion_proof, leaf_hash, node_hash,
};
use tokio::sync::Mutex;

use super::key::Key;
use super::witness::{Cosigned, Cosigning, State, Witnessed, Witnesses};
use super::{LogError, hex};
use crate::journal::{Batch, Blob, Hex, Journal, LogHeadRecord, RootLogProofRecord, RootLogRecord};
use crate::metrics::LogMetrics;
use crate::store::Commit;

/// Attempts until an entry is given up: each conflict is another replica's intermediate.
const MAX_ATTEMPTS: usize = 16;
/// Largest tile level that is served: 65,536 intermediates.
const MAX_SERVED_LEVEL: u8 = 1;

/// Clones are the same log.
#[derive(Clone)]
pub struct RootLog {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    key: Key,
    cosigning: OnceLock<Cosigning>,
    /// The newest checkpoint that a witness cosigned.
    cosigned: ArcSwapOption<Cosigned>,
    /// What entries hash to, as far as they were read: they never change, and there are few.
    leaves: Mutex<Vec<Hash>>,
}

impl RootLog {
    pub fn new(journal: Journal, key: Key) -> Self {
        let (cosigning, cosigned) = (OnceLock::new(), ArcSwapOption::empty());
        let leaves = Mutex::default();
        Self { inner: Arc::new(Inner { journal, key, cosigning, cosigned, leaves }) }
    }

    pub fn key(&self) -> &LogKey {
        self.inner.key.log()
    }

    /// From now on witnesses are asked about what is proven or shown.
    pub(super) fn ask(&self, witnesses: &Witnesses, metrics: &LogMetrics) {
        let weak: Weak<dyn Witnessed> = Arc::downgrade(&(self.inner.clone() as Arc<dyn Witnessed>));
        // Whoever asks twice keeps the first ones.
        let _ = self.inner.cosigning.set(Cosigning::start(&weak, witnesses, metrics));
    }

    /// Enters an intermediate, and yields its place under the newest checkpoint, when as many witnesses
    /// have cosigned that as must. [`Self::dressed`] adds their lines.
    pub(super) async fn enter_witnessed(
        &self,
        issuer_der: &[u8],
        root_der: &[u8],
    ) -> Result<Inclusion, LogError> {
        let place = self.enter(issuer_der, root_der).await?;
        let Some(cosigning) = self.inner.cosigning.get() else { return Ok(place) };
        for _ in 0..MAX_ATTEMPTS {
            let head = self.inner.head().await?;
            let leaves = self.inner.leaves(head.size()).await?;
            let read = |node| node_of(&leaves, node);
            let missing = LogError::NoSuchEntry { index: place.index, size: head.size() };
            let path = inclusion_proof(place.index, head.size(), read).unwrap_or(Err(missing))?;
            let state = self.inner.state(&head);
            cosigning.want(state.clone());
            if cosigning.quorum() > 0 {
                // Another intermediate came meanwhile: the log is read again, with both.
                let Some(cosigned) = cosigning.quorum_on(&state).await? else { continue };
                self.inner.take(cosigned);
            }
            return Ok(Inclusion { index: place.index, path, checkpoint: state.note.to_vec() });
        }
        Err(LogError::Busy)
    }

    /// The same place, with the cosignatures that came since.
    pub(super) fn dressed(&self, place: Inclusion) -> Inclusion {
        match self.inner.cosigned.load_full() {
            // The log's own signature is the first line of both.
            Some(cosigned) if cosigned.note.starts_with(&place.checkpoint) => {
                Inclusion { checkpoint: cosigned.note.to_vec(), ..place }
            }
            _ => place,
        }
    }

    /// Enters an intermediate, unless it is there already, and yields its place.
    pub async fn enter(&self, issuer_der: &[u8], root_der: &[u8]) -> Result<Inclusion, LogError> {
        let name = Hex(digest(&SHA256, issuer_der).as_ref().to_vec()).to_string();
        for _ in 0..MAX_ATTEMPTS {
            if let Some(known) = self.inner.journal.read::<RootLogProofRecord>(&name).await? {
                return self.place(&known.record);
            }
            if let Some(place) = self.attempt(&name, entry_of(issuer_der, root_der)).await? {
                tracing::info!(
                    target: "audit", outcome = "intermediate_logged", index = place.index,
                    sha256 = name, "an intermediate is in the root's log"
                );
                return Ok(place);
            }
        }
        Err(LogError::Busy)
    }

    /// The intermediate that was entered under this hash, and nothing that only lies there.
    pub(super) async fn certificate(&self, sha256: &Hex) -> Result<Vec<u8>, LogError> {
        let name = sha256.to_string();
        let what = format!("root's log, intermediate {name}");
        let proof = self.inner.journal.read::<RootLogProofRecord>(&name).await?;
        let proof = proof.ok_or_else(|| damaged(&what, "it is not there"))?.record;
        let entries = self.inner.entries(proof.index, 1).await?;
        let entry = entries.first().map_or(&[][..], Vec::as_slice);
        let entry = Entry::parse(entry).map_err(|error| damaged(&what, &error.to_string()))?;
        if digest(&SHA256, entry.certificate).as_ref() != sha256.0 {
            return Err(damaged(&what, "its entry is another certificate"));
        }
        Ok(entry.certificate.to_vec())
    }

    /// `None`: somebody else appended meanwhile.
    async fn attempt(&self, name: &str, entry: Vec<u8>) -> Result<Option<Inclusion>, LogError> {
        let which = self.inner.key.name();
        let head = self.inner.journal.read::<LogHeadRecord>(which).await?;
        let mut frontier = match &head {
            Some(head) => frontier(&head.record)?,
            None => Frontier::default(),
        };
        let (index, path) = (frontier.size(), frontier.path_of_next());
        frontier.append(leaf_hash(&entry));
        let path = path.iter().map(hex).collect();
        let proof = RootLogProofRecord { index, path, root: hex(&frontier.root()) };
        let record = LogHeadRecord {
            size: frontier.size(),
            root: hex(&frontier.root()),
            peaks: frontier.peaks().iter().map(hex).collect(),
        };
        let mut batch = Batch::default();
        batch.put(which, head.as_ref(), &record);
        batch.create(&format!("{index:020}"), &RootLogRecord { entry: Blob(entry) });
        batch.create(name, &proof);
        match self.inner.journal.commit(batch).await? {
            Commit::Committed { .. } => self.place(&proof).map(Some),
            Commit::Conflict => Ok(None),
        }
    }

    /// What a record that is committed proves, signed: nothing before its commit is the log.
    fn place(&self, record: &RootLogProofRecord) -> Result<Inclusion, LogError> {
        let path = record.path.iter().map(hash).collect::<Option<_>>();
        let (Some(path), Some(root)) = (path, hash(&record.root)) else {
            return Err(damaged("the proof of an intermediate", "it has hashes that are none"));
        };
        let checkpoint = self.inner.key.sign(record.index + 1, root);
        Ok(Inclusion { index: record.index, path, checkpoint })
    }

    /// What the log shows under a path, if it has it.
    pub async fn read(&self, resource: Resource) -> Result<Option<Bytes>, LogError> {
        let head = self.inner.journal.read::<LogHeadRecord>(self.inner.key.name()).await?;
        let frontier = match &head {
            Some(head) => frontier(&head.record)?,
            None => Frontier::default(),
        };
        if !resource.exists_at(frontier.size()) {
            return Ok(None);
        }
        match resource {
            Resource::Checkpoint => Ok(Some(self.checkpoint(&frontier))),
            Resource::Entries { index, width } => {
                let first = index * u64::from(TILE_WIDTH);
                let entries = self.inner.entries(first, width.into()).await?;
                Ok(encode_bundle(entries.iter().map(Vec::as_slice)).map(Bytes::from))
            }
            Resource::Hashes(tile) if tile.level <= MAX_SERVED_LEVEL => {
                self.tile(tile).await.map(Some)
            }
            Resource::Hashes(_) => Ok(None),
        }
    }

    async fn tile(&self, tile: Tile) -> Result<Bytes, LogError> {
        let leaves = 1_u64 << (8 * tile.level);
        let first = tile.index * u64::from(TILE_WIDTH) * leaves;
        let mut bytes = Vec::with_capacity(usize::from(tile.width) * 32);
        for at in 0..u64::from(tile.width) {
            let entries = self.inner.entries(first + at * leaves, leaves).await?;
            let mut row: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
            while row.len() > 1 {
                row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
            }
            bytes.extend(row.iter().flat_map(|hash| hash.0));
        }
        Ok(Bytes::from(bytes))
    }

    /// The newest checkpoint with the cosignatures that there are; if another replica has brought
    /// it, witnesses are asked about it.
    fn checkpoint(&self, head: &Frontier) -> Bytes {
        let state = self.inner.state(head);
        if let Some(cosigning) = self.inner.cosigning.get() {
            cosigning.want_newer(&state);
        }
        match self.inner.cosigned.load_full() {
            Some(cosigned) if cosigned.note.starts_with(&state.note) => cosigned.note.clone(),
            _ => state.note,
        }
    }
}

impl Inner {
    async fn head(&self) -> Result<Frontier, LogError> {
        let head = self.journal.read::<LogHeadRecord>(self.key.name()).await?;
        frontier(&head.ok_or(LogError::Forked)?.record)
    }

    fn state(&self, head: &Frontier) -> State {
        let (size, root) = (head.size(), head.root());
        let checkpoint = Checkpoint { origin: self.key.log().name().to_owned(), size, root };
        State::of(&checkpoint, Bytes::from(self.key.sign(size, root)))
    }

    fn take(&self, cosigned: Cosigned) {
        self.cosigned.rcu(|now| match now {
            Some(now) if (now.size, now.count) >= (cosigned.size, cosigned.count) => {
                Some(now.clone())
            }
            _ => Some(Arc::new(cosigned.clone())),
        });
    }

    async fn leaves(&self, size: u64) -> Result<Vec<Hash>, LogError> {
        // Whoever comes meanwhile waits for the one who reads.
        let mut known = self.leaves.lock().await;
        let read = known.len() as u64;
        if read < size {
            let entries = self.entries(read, size - read).await?;
            known.extend(entries.iter().map(|entry| leaf_hash(entry)));
        }
        Ok(known.iter().take(usize::try_from(size).unwrap_or(usize::MAX)).copied().collect())
    }

    async fn entries(&self, first: u64, count: u64) -> Result<Vec<Vec<u8>>, LogError> {
        let mut entries = Vec::new();
        for index in first..first + count {
            let record = self.journal.read::<RootLogRecord>(&format!("{index:020}")).await?;
            let record =
                record.ok_or_else(|| damaged(&format!("entry {index}"), "it is not there"))?;
            entries.push(record.record.entry.0);
        }
        Ok(entries)
    }
}

impl Witnessed for Inner {
    fn consistency(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Hash>, LogError>> {
        Box::pin(async move {
            if from == 0 || from == to {
                return Ok(Vec::new());
            }
            let leaves = self.leaves(to).await?;
            let proof = consistency_proof(from, to, |node| node_of(&leaves, node));
            proof.unwrap_or(Err(LogError::NoSuchEntry { index: from, size: to }))
        })
    }

    fn newest(&self) -> BoxFuture<'_, Result<State, LogError>> {
        Box::pin(async move { Ok(self.state(&self.head().await?)) })
    }

    fn cosigned(self: Arc<Self>, cosigned: Cosigned) -> BoxFuture<'static, ()> {
        self.take(cosigned);
        Box::pin(async {})
    }
}

/// A complete subtree of a log that is small enough to be held whole.
fn node_of(leaves: &[Hash], node: Node) -> Result<Hash, LogError> {
    let width = 1_usize.checked_shl(node.level.into());
    let first = width.and_then(|width| usize::try_from(node.index).ok()?.checked_mul(width));
    let row =
        first.zip(width).and_then(|(first, width)| leaves.get(first..first.checked_add(width)?));
    let mut row =
        row.ok_or_else(|| damaged("root's log", "it has fewer entries than its head"))?.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    Ok(row[0])
}

/// Replays a root's log that lies in this journal.
pub(super) async fn verify(journal: &Journal) -> Result<u64, LogError> {
    let head = journal.read::<LogHeadRecord>(&super::Which::Root.name()).await?;
    let Some(head) = head else { return Ok(0) };
    let said = frontier(&head.record)?;
    let mut replayed = Frontier::default();
    for index in 0..said.size() {
        let record = journal.read::<RootLogRecord>(&format!("{index:020}")).await?;
        let what = format!("root's log, entry {index}");
        let record = record.ok_or_else(|| damaged(&what, "it is not there"))?;
        replayed.append(leaf_hash(&record.record.entry.0));
    }
    if replayed != said || hex(&said.root()) != head.record.root {
        return Err(damaged("root's log", "its entries do not make its root"));
    }
    Ok(said.size())
}

fn frontier(record: &LogHeadRecord) -> Result<Frontier, LogError> {
    let peaks = record
        .peaks
        .iter()
        .map(hash)
        .collect::<Option<_>>()
        .ok_or_else(|| damaged("root's log", "its head has hashes that are none"))?;
    Frontier::new(record.size, peaks).map_err(|error| damaged("root's log", &error.to_string()))
}

fn hash(bytes: &Hex) -> Option<Hash> {
    bytes.0.as_slice().try_into().ok().map(Hash)
}

fn damaged(what: &str, why: &str) -> LogError {
    LogError::Damaged { what: what.to_owned(), why: why.to_owned() }
}
