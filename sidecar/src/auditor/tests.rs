//! Trees of every small shape against tiles that are genuine, forged and cut; and what the ledger
//! makes of states in any order.
//!
//! Never: sockets, or real time.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::time::Duration;

use myelin_identity::log::{Frontier, Hash, LogKey, Node, TILE_WIDTH, Tile, leaf_hash};
use tokio::time::Instant;

use super::compare::{Lack, Tree};
use super::ledger::{Entered, Ledger, MAX_LOGS, MAX_WAITING};
use crate::proofs::Seen;

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

fn seen(log: &str, size: u64, root: u8) -> Seen {
    let log = LogKey::new(log, [3; 32]).unwrap();
    Seen { log, size, root: Hash([root; 32]), note: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn two_roots_for_one_size_are_a_fork_at_once() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    assert_eq!(ledger.enter(seen("l", 5, 1), now), Entered::Waits);
    assert_eq!(ledger.enter(seen("l", 5, 1), now), Entered::Known);
    assert_eq!(ledger.enter(seen("other", 5, 2), now), Entered::Waits);
    let Entered::Contradicts(fork) = ledger.enter(seen("l", 5, 2), now) else {
        panic!("two roots for one size")
    };
    assert_eq!(*fork, (seen("l", 5, 1), seen("l", 5, 2)));
}

#[tokio::test(start_paused = true)]
async fn states_are_gathered_proven_together_and_then_rest() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    assert_eq!(ledger.next_due(), None);
    for size in [7, 5, 9] {
        ledger.enter(seen("l", size, 1), now);
    }
    let due = ledger.next_due().unwrap();
    assert_eq!(due, now + Duration::from_secs(1));
    let log = seen("l", 0, 0).log;
    assert!(ledger.due(now).is_empty());
    assert_eq!(ledger.due(due), std::slice::from_ref(&log));
    assert_eq!(ledger.states(&log).len(), 3);
    assert_eq!(ledger.proven(seen("l", 12, 1)), 3);
    assert_eq!(ledger.next_due(), None);
    assert_eq!(ledger.states(&log), [seen("l", 12, 1)]);
    // The next question waits for its pause.
    ledger.enter(seen("l", 13, 1), Instant::now());
    assert_eq!(ledger.next_due().unwrap(), Instant::now() + Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_less_and_less_often() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.enter(seen("l", 7, 1), now);
    let log = seen("l", 0, 0).log;
    let pauses: Vec<u64> = (0..8).map(|_| ledger.postpone(&log, now).as_secs()).collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(ledger.states(&log).len(), 1, "nothing is forgotten");
}

#[tokio::test(start_paused = true)]
async fn the_ledger_is_bounded_in_logs_and_in_states() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    for size in 0..MAX_WAITING {
        assert_eq!(ledger.enter(seen("l", 1 + size as u64, 1), now), Entered::Waits);
    }
    assert_eq!(ledger.enter(seen("l", 1_000, 1), now), Entered::NoRoom);
    for number in 0..MAX_LOGS {
        ledger.enter(seen(&format!("l{number}"), 1, 1), now);
    }
    assert!(ledger.states(&seen("l", 0, 0).log).is_empty(), "seen longest ago");
    assert_eq!(ledger.states(&seen("l0", 0, 0).log).len(), 1);
}
