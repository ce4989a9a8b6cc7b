//! The right edge of the issuing log in memory: the tiles and the bundle that are not full yet. A
//! batch grows it into new tiles, and into the proofs of what was appended.
//!
//! Never: I/O.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use myelin_identity::log::{
    Hash, Node, Resource, TILE_WIDTH, Tile, encode_bundle, inclusion_proof, leaf_hash, node_hash,
    node_in_tile, root_of, tile_holding,
};

/// Level and index of a tile.
type Place = (u8, u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    pub(super) size: u64,
    /// Tiles that are not full: one a level at most.
    pub(super) tiles: BTreeMap<Place, Vec<Hash>>,
    /// The entries of the bundle that is not full.
    pub(super) entries: Vec<Bytes>,
}

/// What a batch makes of an edge.
pub(super) struct Grown {
    pub(super) edge: Edge,
    pub(super) root: Hash,
    /// What has to be on disk before the checkpoint.
    pub(super) files: Vec<(Resource, Vec<u8>)>,
    /// One for each entry of the batch, in its order.
    pub(super) paths: Vec<Vec<Hash>>,
}

/// A node that the edge should have and has not: ours to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing(pub(super) Node);

impl Edge {
    pub(super) fn grow(&self, batch: &[Bytes]) -> Result<Grown, Missing> {
        let mut edge = self.clone();
        let mut touched: BTreeMap<Place, Vec<Hash>> = edge.tiles.clone();
        let mut dirty = Vec::new();
        let mut bundles = Vec::new();
        for entry in batch {
            push(&mut touched, &mut dirty, edge.size, leaf_hash(entry));
            edge.entries.push(entry.clone());
            if edge.entries.len() == usize::from(TILE_WIDTH) {
                bundles.push((edge.size >> 8, std::mem::take(&mut edge.entries)));
            }
            edge.size += 1;
        }
        if !edge.entries.is_empty() {
            bundles.push((edge.size >> 8, edge.entries.clone()));
        }
        dirty.sort_unstable();
        dirty.dedup();
        let mut files: Vec<(Resource, Vec<u8>)> = Vec::new();
        for (index, entries) in &bundles {
            let bytes = encode_bundle(entries.iter().map(AsRef::as_ref))
                .expect("an entry is a bounded certificate, below 64 KiB");
            files.push((Resource::Entries { index: *index, width: width(entries) }, bytes));
        }
        for place in dirty {
            let row = &touched[&place];
            let tile = Tile { level: place.0, index: place.1, width: width(row) };
            let hashes: Vec<[u8; 32]> = row.iter().map(|hash| hash.0).collect();
            files.push((Resource::Hashes(tile), hashes.concat()));
        }
        let (root, paths) = prove(&touched, self.size, edge.size)?;
        edge.tiles = touched;
        edge.tiles.retain(|_, row| row.len() < usize::from(TILE_WIDTH));
        Ok(Grown { edge, root, files, paths })
    }

    /// The root, out of the tiles that are not full: every complete subtree of the right edge is
    /// in one of them.
    pub(super) fn root(&self) -> Result<Hash, Missing> {
        root_of(self.size, |node| read(&self.tiles, node, self.size))
    }
}

/// Adds a leaf to its tile, and each tile that it fills to the one above.
fn push(tiles: &mut BTreeMap<Place, Vec<Hash>>, dirty: &mut Vec<Place>, index: u64, leaf: Hash) {
    let (mut level, mut position, mut hash) = (0, index, leaf);
    loop {
        let place = (level, position >> 8);
        let row = tiles.entry(place).or_default();
        row.push(hash);
        dirty.push(place);
        if row.len() < usize::from(TILE_WIDTH) {
            return;
        }
        let mut whole = row.clone();
        while whole.len() > 1 {
            whole = whole.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        (hash, position, level) = (whole[0], position >> 8, level + 1);
    }
}

fn prove(
    tiles: &BTreeMap<Place, Vec<Hash>>,
    from: u64,
    to: u64,
) -> Result<(Hash, Vec<Vec<Hash>>), Missing> {
    // Two nodes a leaf, and the edge above: made at once, since a table that grows is copied, and the
    // pages of each size are cleared by the kernel first.
    let leaves = usize::try_from(to - from).unwrap_or_default();
    let mut known: HashMap<Node, Hash> = HashMap::with_capacity(2 * leaves + 64);
    let mut look = |node: Node| -> Result<Hash, Missing> {
        if let Some(hash) = known.get(&node) {
            return Ok(*hash);
        }
        let hash = read(tiles, node, to)?;
        known.insert(node, hash);
        Ok(hash)
    };
    let root = root_of(to, &mut look)?;
    let paths = (from..to)
        .map(|index| inclusion_proof(index, to, &mut look).unwrap_or_else(|| Ok(Vec::new())))
        .collect::<Result<_, _>>()?;
    Ok((root, paths))
}

fn read(tiles: &BTreeMap<Place, Vec<Hash>>, node: Node, size: u64) -> Result<Hash, Missing> {
    tile_holding(node, size)
        .and_then(|tile| tiles.get(&(tile.level, tile.index)))
        .and_then(|row| node_in_tile(node, row))
        .ok_or(Missing(node))
}

fn width<T>(row: &[T]) -> u16 {
    row.len().min(usize::from(TILE_WIDTH)) as u16
}
