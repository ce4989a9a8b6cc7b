//! The root's log: every intermediate is in it before it signs. It has as many entries as there were
//! intermediates, lies whole in the store, and grows by compare-and-swap, so that replicas share it.
//!
//! Never: an SVID, or a signature on what is not committed.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use myelin_identity::log::{
    Frontier, Hash, Inclusion, LogKey, Resource, TILE_WIDTH, Tile, encode_bundle, entry_of,
    leaf_hash, node_hash,
};

use super::key::Key;
use super::{LogError, hex};
use crate::journal::{Batch, Blob, Hex, Journal, LogHeadRecord, RootLogProofRecord, RootLogRecord};
use crate::store::Commit;

/// Attempts until an entry is given up: each conflict is another replica's intermediate.
const MAX_ATTEMPTS: usize = 16;
/// Largest tile level that is served: 65,536 intermediates.
const MAX_SERVED_LEVEL: u8 = 1;

#[derive(Clone)]
pub struct RootLog {
    journal: Journal,
    key: Arc<Key>,
}

impl RootLog {
    pub fn new(journal: Journal, key: Key) -> Self {
        Self { journal, key: Arc::new(key) }
    }

    pub fn key(&self) -> &LogKey {
        self.key.log()
    }

    /// Enters an intermediate, unless it is there already, and yields its place.
    pub async fn enter(&self, issuer_der: &[u8], root_der: &[u8]) -> Result<Inclusion, LogError> {
        let name = Hex(digest(&SHA256, issuer_der).as_ref().to_vec()).to_string();
        for _ in 0..MAX_ATTEMPTS {
            if let Some(known) = self.journal.read::<RootLogProofRecord>(&name).await? {
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

    /// `None`: somebody else appended meanwhile.
    async fn attempt(&self, name: &str, entry: Vec<u8>) -> Result<Option<Inclusion>, LogError> {
        let which = self.key.name();
        let head = self.journal.read::<LogHeadRecord>(which).await?;
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
        match self.journal.commit(batch).await? {
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
        let checkpoint = self.key.sign(record.index + 1, root);
        Ok(Inclusion { index: record.index, path, checkpoint })
    }

    /// What the log shows under a path, if it has it.
    pub async fn read(&self, resource: Resource) -> Result<Option<Bytes>, LogError> {
        let head = self.journal.read::<LogHeadRecord>(self.key.name()).await?;
        let frontier = match &head {
            Some(head) => frontier(&head.record)?,
            None => Frontier::default(),
        };
        if !resource.exists_at(frontier.size()) {
            return Ok(None);
        }
        match resource {
            Resource::Checkpoint => {
                Ok(Some(Bytes::from(self.key.sign(frontier.size(), frontier.root()))))
            }
            Resource::Entries { index, width } => {
                let entries = self.entries(index * u64::from(TILE_WIDTH), width.into()).await?;
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
            let entries = self.entries(first + at * leaves, leaves).await?;
            let mut row: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
            while row.len() > 1 {
                row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
            }
            bytes.extend(row.iter().flat_map(|hash| hash.0));
        }
        Ok(Bytes::from(bytes))
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
