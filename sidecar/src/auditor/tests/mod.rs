//! Trees of every small shape against tiles that are genuine, forged and cut.
//!
//! Never: sockets, or real time.

// SPDX-License-Identifier: Apache-2.0

mod ledger;
mod shelf;

use std::collections::HashMap;

use super::compare::{Lack, Tree};
use myelin_identity::log::{Frontier, Hash, Node, TILE_WIDTH, Tile, leaf_hash};

/// A whole history: the roots of all its sizes, and every node that ever was complete.
struct History {
    roots: Vec<Hash>,
    nodes: HashMap<Node, Hash>,
}

impl History {
    /// From `fork` on the leaves are others than those of a history without one.
    fn new(size: u64, fork: u64) -> Self {
        let (mut frontier, mut nodes) = (Frontier::default(), HashMap::new());
        let mut roots = vec![frontier.root()];
        for leaf in 0..size {
            let entry = format!("{leaf}{}", if leaf >= fork { " of the fork" } else { "" });
            nodes.extend(frontier.append(leaf_hash(entry.as_bytes())));
            roots.push(frontier.root());
        }
        Self { roots, nodes }
    }

    fn tile(&self, tile: Tile) -> Vec<Hash> {
        let first = tile.index * u64::from(TILE_WIDTH);
        let level = tile.level * 8;
        (first..first + u64::from(tile.width))
            .map(|index| self.nodes[&Node { level, index }])
            .collect()
    }

    fn tree(&self, size: u64) -> Tree {
        Tree::new(size, self.roots[usize::try_from(size).unwrap()])
    }

    /// The root at `then` of the tree at `now`, with the tiles of `tiles`.
    fn ask(&self, now: u64, then: u64, tiles: &Self) -> Option<(Hash, usize)> {
        let mut tree = self.tree(now);
        let mut asked = 0;
        loop {
            match tree.root_at(then) {
                Ok(root) => return Some((root, asked)),
                Err(Lack(tile)) => {
                    asked += 1;
                    tree.give(tile, tiles.tile(tile)).ok()?;
                }
            }
        }
    }
}

const SIZES: [u64; 12] = [1, 2, 3, 7, 255, 256, 257, 511, 512, 700, 1_000, 1_500];

#[test]
fn every_earlier_root_comes_out_of_genuine_tiles() {
    let history = History::new(1_500, u64::MAX);
    for now in SIZES {
        for then in SIZES.into_iter().filter(|then| *then <= now) {
            let (root, asked) = history.ask(now, then, &history).expect("genuine tiles");
            assert_eq!(root, history.roots[usize::try_from(then).unwrap()], "{then} of {now}");
            assert!(asked <= 5, "{asked} tiles for {then} of {now}");
        }
    }
}

#[test]
fn a_history_that_forked_is_told_apart_from_what_it_was() {
    let (one, other) = (History::new(1_500, u64::MAX), History::new(1_500, 600));
    for (then, same) in [(599, true), (600, true), (601, false), (1_000, false)] {
        let (root, _) = other.ask(1_500, then, &other).expect("its own tiles");
        assert_eq!(root == one.roots[usize::try_from(then).unwrap()], same, "{then}");
    }
}

#[test]
fn tiles_of_another_history_prove_nothing() {
    let (one, other) = (History::new(1_500, u64::MAX), History::new(1_500, 600));
    assert!(one.ask(1_500, 700, &other).is_none());
    assert!(other.ask(1_500, 700, &one).is_none());
    // The fork begins behind the first two tiles, but the tiles above them are others.
    assert!(one.ask(1_500, 256, &other).is_none());
}

#[test]
fn a_tile_that_is_too_narrow_or_changed_is_refused() {
    let history = History::new(1_500, u64::MAX);
    let changed = |tile| {
        let mut hashes = history.tile(tile);
        hashes[0] = Hash([0; 32]);
        hashes
    };
    let mut tree = history.tree(1_500);
    let mut full = 0;
    for _ in 0..8 {
        let Err(Lack(tile)) = tree.root_at(300) else { break };
        assert!(tree.give(tile, history.tile(tile)[1..].to_vec()).is_err(), "{tile} is narrower");
        if tile.width == TILE_WIDTH {
            full += 1;
            assert!(tree.give(tile, changed(tile)).is_err(), "{tile} is changed");
        }
        tree.give(tile, history.tile(tile)).unwrap();
    }
    assert_eq!((tree.root_at(300), full), (Ok(history.roots[300]), 1));
    // Partial tiles are judged together: a changed one spoils all of them, and all are asked again.
    let mut tree = history.tree(1_500);
    let Err(Lack(first)) = tree.root_at(300) else { panic!("nothing is there") };
    tree.give(first, history.tile(first)).unwrap();
    let Err(Lack(last)) = tree.root_at(300) else { panic!("one is not there") };
    assert!(tree.give(last, changed(last)).is_err());
    assert_eq!(tree.root_at(300), Err(Lack(first)));
}
