//! The files' side of a replay: every entry against its tile, every tile above against what the
//! entries make of it.
//!
//! Never: the journal.

// SPDX-License-Identifier: Apache-2.0

use bytes::Bytes;
use myelin_identity::log::{Frontier, Hash, Resource, TILE_WIDTH, Tile, leaf_hash};

use super::super::LogError;
use super::super::disk::Disk;
use super::Findings;

pub(super) struct Replay<'a> {
    disk: &'a Disk,
    size: u64,
    pub(super) frontier: Frontier,
    /// Hashes of each tile level above 0, as the entries make them.
    rows: Vec<Vec<Hash>>,
    /// The size whose root is asked for later, and that root.
    marked: (u64, Option<Hash>),
}

impl<'a> Replay<'a> {
    /// Of so many entries; keeps the root at `mark` of them.
    pub(super) fn new(disk: &'a Disk, size: u64, mark: u64) -> Self {
        let frontier = Frontier::default();
        let root = (mark == 0).then(|| frontier.root());
        Self { disk, size, frontier, rows: Vec::new(), marked: (mark, root) }
    }

    /// The root at the marked size, when the replay has come so far.
    pub(super) fn marked_root(&self) -> Option<Hash> {
        self.marked.1
    }

    /// The entries of one bundle; none if it cannot be read.
    pub(super) fn bundle(&mut self, index: u64, findings: &mut Findings) -> Option<Vec<Bytes>> {
        let first = index * u64::from(TILE_WIDTH);
        let width = (self.size - first).min(u64::from(TILE_WIDTH)) as u16;
        let resource = Resource::Entries { index, width };
        let tile = Tile { level: 0, index, width };
        let hashes = match self.disk.tile(tile) {
            Ok(hashes) => hashes,
            Err(error) => {
                findings.damage(tile, why(error));
                Vec::new()
            }
        };
        let entries = match self.disk.entries(index, width) {
            Ok(entries) => entries,
            Err(error) => {
                findings.damage(resource, why(error));
                // The tile goes on for it, so that one damage is one damage.
                hashes.iter().for_each(|hash| self.append(*hash));
                return None;
            }
        };
        for (at, entry) in (first..).zip(&entries) {
            let hash = leaf_hash(entry);
            self.append(hash);
            if hashes.get((at - first) as usize).is_some_and(|said| *said != hash) {
                findings.damage(resource, format!("entry {at} is not the one of {tile}"));
            }
        }
        Some(entries)
    }

    fn append(&mut self, leaf: Hash) {
        for (node, hash) in self.frontier.append(leaf) {
            if node.level > 0 && node.level % 8 == 0 {
                let level = usize::from(node.level / 8) - 1;
                if self.rows.len() <= level {
                    self.rows.push(Vec::new());
                }
                self.rows[level].push(hash);
            }
        }
        if self.frontier.size() == self.marked.0 {
            self.marked.1 = Some(self.frontier.root());
        }
    }

    /// Compares the tiles above level 0 with what the entries make of them.
    pub(super) fn tiles_above(&self, findings: &mut Findings) {
        for (level, row) in (1..).zip(&self.rows) {
            for (index, made) in (0..).zip(row.chunks(usize::from(TILE_WIDTH))) {
                let tile = Tile { level, index, width: made.len() as u16 };
                match self.disk.tile(tile) {
                    Ok(hashes) if hashes == made => {}
                    Ok(_) => findings.damage(tile, "its hashes are not those of the tiles below"),
                    Err(error) => findings.damage(tile, why(error)),
                }
            }
        }
    }
}

/// What is wrong, where a line says already with what.
fn why(error: LogError) -> String {
    match error {
        LogError::Damaged { why, .. } => why,
        other => other.to_string(),
    }
}
