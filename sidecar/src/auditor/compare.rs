//! One signed tree and those of its tiles that are known to be genuine, for the question: which root
//! did this history have when it was shorter? Pure; called by `auditor` with tiles from anywhere.
//!
//! Never: an answer out of a tile that does not hash up to the signed root.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;

use myelin_identity::log::{
    Hash, Node, TILE_WIDTH, Tile, node_hash, node_in_tile, root_of, tile_holding,
};

/// Levels of the tree in one tile.
const TILE_HEIGHT: u8 = 8;

/// This tile is needed for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack(pub(super) Tile);

/// The tile is not one of this tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotOfThisTree;

#[derive(Debug)]
pub(super) struct Tree {
    size: u64,
    root: Hash,
    /// Full tiles are checked against their parent when they come; the partial ones, which the
    /// root is made of, all together when the last of them is there.
    tiles: HashMap<Tile, Vec<Hash>>,
}

impl Tree {
    pub(super) fn new(size: u64, root: Hash) -> Self {
        Self { size, root, tiles: HashMap::new() }
    }

    /// The root of the first `size` leaves, `size` being no more than the tree's own.
    pub(super) fn root_at(&self, size: u64) -> Result<Hash, Lack> {
        if let Some(edge) = self.missing_edge() {
            return Err(Lack(edge));
        }
        root_of(size, |node| self.node(node))
    }

    /// Takes the tile that an answer lacked.
    pub(super) fn give(&mut self, tile: Tile, hashes: Vec<Hash>) -> Result<(), NotOfThisTree> {
        if hashes.len() != usize::from(tile.width) {
            return Err(NotOfThisTree);
        }
        if tile.width == TILE_WIDTH {
            let whole = Node { level: TILE_HEIGHT * (tile.level + 1), index: tile.index };
            let stated = self.node(whole).map_err(|_| NotOfThisTree)?;
            let half = |index| node_in_tile(Node { level: TILE_HEIGHT - 1, index }, &hashes);
            let found = half(0).zip(half(1)).map(|(left, right)| node_hash(&left, &right));
            if found != Some(stated) {
                return Err(NotOfThisTree);
            }
            self.tiles.insert(tile, hashes);
            return Ok(());
        }
        self.tiles.insert(tile, hashes);
        if self.missing_edge().is_none()
            && root_of(self.size, |node| self.node(node)) != Ok(self.root)
        {
            self.tiles.clear();
            return Err(NotOfThisTree);
        }
        Ok(())
    }

    fn node(&self, node: Node) -> Result<Hash, Lack> {
        let tile = tile_holding(node, self.size).expect("a node of a tree that is no larger");
        match self.tiles.get(&tile) {
            Some(hashes) => Ok(node_in_tile(node, hashes).expect("a tile is as wide as it says")),
            None => Err(Lack(self.first_missing(tile))),
        }
    }

    /// The tile itself, or the highest one above it that is not there yet: a tile is checked
    /// against the one above.
    fn first_missing(&self, tile: Tile) -> Tile {
        if tile.width < TILE_WIDTH {
            return tile;
        }
        let whole = Node { level: TILE_HEIGHT * (tile.level + 1), index: tile.index };
        let above = tile_holding(whole, self.size).expect("a full tile is a node of the tree");
        if self.tiles.contains_key(&above) { tile } else { self.first_missing(above) }
    }

    /// One of the partial tiles, which together are the tree's right edge.
    fn missing_edge(&self) -> Option<Tile> {
        Tile::partial_of(self.size).into_iter().rev().find(|tile| !self.tiles.contains_key(tile))
    }
}
