//! One task appends: it takes what waits, writes it down as one batch, and only then answers.
//!
//! The order, and what a crash between two steps leaves:
//!
//! 1. entries and tiles on disk, synced: files that no checkpoint speaks of, overwritten by the
//!    next batch;
//! 2. the head in the journal, by compare-and-swap: the batch is part of the log from here on, and
//!    no second process can make it another;
//! 3. the checkpoint signed and published: made again from the head at the next start;
//! 4. the answers.
//!
//! An entry waits for the batch before it, and for nothing else: batches grow with the load, and a
//! lone certificate is not kept waiting.
//!
//! Never: two batches at once.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use myelin_identity::log::{Checkpoint, Hash, Inclusion, Resource, TILE_WIDTH, Tile, leaf_hash};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::disk::Disk;
use super::edge::{Edge, Grown, Missing};
use super::key::Key;
use super::shared::{Published, Shared};
use super::{LogError, hex};
use crate::journal::{Batch, Entry, Journal, LogHeadRecord};
use crate::metrics::LogMetrics;
use crate::store::Commit;

/// Entries in one batch: at 700 bytes each a write of less than a megabyte.
const MAX_BATCH: usize = 1024;
/// Attempts to fence the head: the commit that was under way may land in between, which is one.
const MAX_FENCES: usize = 3;

/// An entry, and who waits for its place.
pub(super) struct Waiting {
    pub(super) entry: Bytes,
    /// Whether it is of use only with the cosignatures that are required.
    pub(super) witnessed: bool,
    pub(super) answer: oneshot::Sender<Result<Inclusion, LogError>>,
}

pub(super) struct Sequencer {
    shared: Arc<Shared>,
    journal: Journal,
    key: Key,
    edge: Edge,
    head: Entry<LogHeadRecord>,
    /// Whether the journal's last answer left open what is in it.
    unsettled: bool,
    /// Whether the last checkpoint lacks the cosignatures that are required.
    unwitnessed: bool,
    metrics: LogMetrics,
}

/// Opens the log at the journal's head.
pub(super) async fn open(
    data: &Path,
    journal: Journal,
    key: Key,
    metrics: LogMetrics,
) -> Result<(Arc<Shared>, Sequencer), LogError> {
    begin(&journal, &key).await?;
    let head = fenced(&journal, &key).await?;
    let disk = Disk::at(data);
    no_newer(&disk, &key, &head.record)?;
    let edge = right_edge(&disk, head.record.size)?;
    let root = edge.root().map_err(|missing| lost(&missing))?;
    if hex(&root) != head.record.root {
        let why = format!(
            "its root is {root}, the journal's is another; one of them was restored or changed alone"
        );
        let what = format!("right edge at {} entries", edge.size);
        return Err(LogError::Damaged { what, why });
    }
    let published = sign(&key, edge.size, root);
    disk.publish(&published.note).map_err(|error| LogError::Disk(error.to_string()))?;
    metrics.entries.set(i64::try_from(edge.size).unwrap_or(i64::MAX));
    let shared = Arc::new(Shared::new(key.log().clone(), disk, published));
    let (unsettled, unwitnessed, log) = (false, false, shared.clone());
    let sequencer =
        Sequencer { shared: log, journal, key, edge, head, unsettled, unwitnessed, metrics };
    Ok((shared, sequencer))
}

/// The head of a log that is not there yet.
async fn begin(journal: &Journal, key: &Key) -> Result<(), LogError> {
    if journal.read::<LogHeadRecord>(key.name()).await?.is_some() {
        return Ok(());
    }
    let root = hex(&myelin_identity::log::empty_root());
    let mut batch = Batch::default();
    batch.create(key.name(), &LogHeadRecord { size: 0, root, peaks: Vec::new() });
    // If another process was faster its head is the one, and whoever appends first wins.
    let _ = journal.commit(batch).await?;
    Ok(())
}

/// The head, after it was committed onto itself. A commit whose answer was lost may still be on its
/// way: whatever it rests on has another revision now, so that it cannot make files that are about
/// to be overwritten a part of the log.
async fn fenced(journal: &Journal, key: &Key) -> Result<Entry<LogHeadRecord>, LogError> {
    for _ in 0..MAX_FENCES {
        let head = journal.read::<LogHeadRecord>(key.name()).await?.ok_or(LogError::Forked)?;
        let mut batch = Batch::default();
        batch.replace(&head, &head.record);
        if let Commit::Committed { revision } = journal.commit(batch).await? {
            return Ok(Entry { revision, ..head });
        }
    }
    Err(LogError::Forked)
}

/// Refuses to go on where something is signed that the store does not know: it was restored beside
/// a log that went on, or the log in this directory is another one.
fn no_newer(disk: &Disk, key: &Key, head: &LogHeadRecord) -> Result<(), LogError> {
    let Ok(Some(note)) = disk.read(Resource::Checkpoint) else { return Ok(()) };
    let known = head.size;
    if let Ok(signed) = Checkpoint::open(&note, key.log()) {
        let other = signed.size == known && hex(&signed.root) != head.root;
        if signed.size > known || other {
            return Err(LogError::Newer { signed: signed.size, known });
        }
        return Ok(());
    }
    // What is torn is written anew below; what is somebody else's is not ours to overwrite.
    let note = String::from_utf8_lossy(&note);
    let mut lines = note.lines();
    let (origin, size) = (lines.next().unwrap_or_default(), lines.next().map(str::parse::<u64>));
    let filled = size.is_some_and(|size| size.is_ok_and(|size| size > 0));
    if known == 0 && filled && origin != key.log().name() {
        return Err(LogError::Another(origin.to_owned()));
    }
    Ok(())
}

/// Reads the tiles and the bundle that are not full, and sees that they fit each other.
fn right_edge(disk: &Disk, size: u64) -> Result<Edge, LogError> {
    let mut edge = Edge { size, ..Edge::default() };
    for tile in Tile::partial_of(size) {
        edge.tiles.insert((tile.level, tile.index), disk.tile(tile)?);
    }
    let width = (size % u64::from(TILE_WIDTH)) as u16;
    if width > 0 {
        let index = size / u64::from(TILE_WIDTH);
        edge.entries = disk.entries(index, width)?;
        let made = edge.entries.iter().map(|entry| leaf_hash(entry));
        if !edge.tiles.get(&(0, index)).is_some_and(|row| made.eq(row.iter().copied())) {
            let what = Resource::Entries { index, width }.to_string();
            let why = "its entries are not those of its tile".to_owned();
            return Err(LogError::Damaged { what, why });
        }
    }
    Ok(edge)
}

pub(super) fn lost(missing: &Missing) -> LogError {
    let Missing(node) = missing;
    let what = format!("tile of level {} node {}", node.level, node.index);
    LogError::Damaged { what, why: "it does not hold a hash that it must".to_owned() }
}

fn sign(key: &Key, size: u64, root: Hash) -> Published {
    Published::signed(size, root, Bytes::from(key.sign(size, root)))
}

impl Sequencer {
    /// Appends until nobody can ask any more.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        let shared = self.shared.clone();
        loop {
            let taken = tokio::select! {
                biased;
                taken = queue.recv_many(&mut waiting, MAX_BATCH) => taken,
                () = shared.closing() => {
                    queue.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            let started = Instant::now();
            self.without_quorum(&mut waiting).await;
            // Whoever gave up must not be in the log: nobody would ever hold that certificate.
            waiting.retain(|one| !one.answer.is_closed());
            if waiting.is_empty() {
                continue;
            }
            let entries: Vec<Bytes> = waiting.iter().map(|one| one.entry.clone()).collect();
            let appended = self.append(&entries).await;
            self.metrics.append_duration.observe(started.elapsed().as_secs_f64());
            self.metrics.batch_entries.observe(entries.len() as f64);
            if let Err(error) = &appended {
                self.metrics.failures.inc();
                tracing::error!(%error, entries = entries.len(), "cannot log certificates; none of them is handed out");
            }
            self.answer(&mut waiting, appended).await;
        }
    }

    /// While witnesses are missing that must be there, nothing is logged that could not be handed
    /// out then.
    async fn without_quorum(&mut self, waiting: &mut Vec<Waiting>) {
        if !self.unwitnessed || !waiting.iter().any(|one| one.witnessed) {
            return;
        }
        match self.shared.witness().await {
            Ok(_) => self.unwitnessed = false,
            Err(error) => refuse(waiting, &error),
        }
    }

    async fn answer(
        &mut self,
        waiting: &mut Vec<Waiting>,
        appended: Result<Vec<Inclusion>, LogError>,
    ) {
        let places = match appended {
            Ok(places) => places,
            Err(error) => {
                waiting.iter_mut().for_each(|one| one.witnessed = true);
                return refuse(waiting, &error);
            }
        };
        let (waits, ready): (Vec<_>, Vec<_>) =
            waiting.drain(..).zip(places).partition(|(one, _)| one.witnessed);
        for (one, place) in ready {
            // Whoever gave up in between has an entry without a certificate.
            let _ = one.answer.send(Ok(place));
        }
        if waits.is_empty() {
            return;
        }
        let cosigned = self.shared.witness().await;
        self.unwitnessed = cosigned.is_err();
        for (one, place) in waits {
            let checkpoint = |note: &Bytes| Inclusion { checkpoint: note.to_vec(), ..place };
            let _ = one.answer.send(cosigned.as_ref().map(checkpoint).map_err(Clone::clone));
        }
    }

    async fn append(&mut self, entries: &[Bytes]) -> Result<Vec<Inclusion>, LogError> {
        self.settle().await?;
        let first = self.edge.size;
        let grown = self.edge.grow(entries).map_err(|missing| lost(&missing))?;
        let grown = self.write(grown).await?;
        let record =
            LogHeadRecord { size: grown.edge.size, root: hex(&grown.root), peaks: Vec::new() };
        let mut batch = Batch::default();
        batch.replace(&self.head, &record);
        match self.journal.commit(batch).await {
            Ok(Commit::Committed { revision }) => {
                self.head = Entry { key: self.head.key.clone(), revision, record };
            }
            Ok(Commit::Conflict) => {
                self.unsettled = true;
                return Err(LogError::Forked);
            }
            Err(error) => {
                self.unsettled = true;
                return Err(error.into());
            }
        }
        let published = self.take_over(grown.edge, grown.root, &grown.files).await;
        let places = grown.paths.into_iter().zip(first..);
        Ok(places
            .map(|(path, index)| Inclusion { index, path, checkpoint: published.note.to_vec() })
            .collect())
    }

    /// After a commit without an answer: what the journal says once that commit can no longer come
    /// is the log. Files that it does not speak of are overwritten, files that it does are read
    /// again.
    async fn settle(&mut self) -> Result<(), LogError> {
        if !self.unsettled {
            return Ok(());
        }
        let head = fenced(&self.journal, &self.key).await?;
        if head.record != self.head.record {
            let disk = self.shared.disk.clone();
            let size = head.record.size;
            let read = tokio::task::spawn_blocking(move || right_edge(&disk, size));
            let edge = read.await.unwrap_or(Err(LogError::Ended))?;
            let root = edge.root().map_err(|missing| lost(&missing))?;
            if hex(&root) != head.record.root {
                return Err(LogError::Forked);
            }
            self.take_over(edge, root, &[]).await;
        }
        self.head = head;
        self.unsettled = false;
        Ok(())
    }

    async fn write(&self, grown: Grown) -> Result<Grown, LogError> {
        let disk = self.shared.disk.clone();
        let written = tokio::task::spawn_blocking(move || {
            disk.write(&grown.files)
                .map(|()| grown)
                .map_err(|error| LogError::Disk(error.to_string()))
        });
        written.await.unwrap_or(Err(LogError::Ended))
    }

    /// Signs and shows what the journal holds now.
    async fn take_over(
        &mut self,
        edge: Edge,
        root: Hash,
        files: &[(Resource, Vec<u8>)],
    ) -> Arc<Published> {
        let published = Arc::new(sign(&self.key, edge.size, root));
        self.metrics.entries.set(i64::try_from(edge.size).unwrap_or(i64::MAX));
        self.edge = edge;
        self.shared.publish(published.clone());
        let (shared, disk) = (self.shared.clone(), self.shared.disk.clone());
        let written: Vec<Resource> = files.iter().map(|(resource, _)| *resource).collect();
        let shown = tokio::task::spawn_blocking(move || {
            disk.forget_partials(&written);
            shared.show();
        });
        // It is not waited for in vain: a file that cannot be written is told and no more.
        let _ = shown.await;
        published
    }
}

/// Answers those who cannot go on without cosignatures.
fn refuse(waiting: &mut Vec<Waiting>, error: &LogError) {
    let (refused, left) = waiting.drain(..).partition(|one| one.witnessed);
    *waiting = left;
    let refused: Vec<Waiting> = refused;
    for one in refused {
        let _ = one.answer.send(Err(error.clone()));
    }
}
