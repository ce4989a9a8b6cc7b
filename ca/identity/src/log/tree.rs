//! Merkle trees of RFC 6962, section 2.1: hashes, inclusion and consistency proofs, and the frontier
//! that lets a log grow without reading itself. Called by the rest of this room and by the CA.
//! Never: a tree in memory; whoever makes a proof is asked for the nodes that it needs.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Most hashes in a proof: a tree of less than 2^63 leaves has that many levels.
pub const MAX_PATH: usize = 63;

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

/// A node's SHA-256. Displayed as base64, the spelling of checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

/// A complete subtree: the `index`-th of those with 2^`level` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub level: u8,
    pub index: u64,
}

/// The complete subtrees of a tree's right edge, from the largest to the smallest: all that is
/// needed to append, to know the root, and to prove the newest leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

/// The peaks are not those of a tree of this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tree of {size} leaves has {expected} peaks, not {found}")]
pub struct FrontierError {
    pub size: u64,
    pub expected: usize,
    pub found: usize,
}

impl Hash {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From base64 with padding, one spelling only.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash(&[&[LEAF_PREFIX], entry])
}

pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[NODE_PREFIX], &left.0, &right.0])
}

/// The root of a tree without leaves.
pub fn empty_root() -> Hash {
    hash(&[])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Hash(out)
}

impl Frontier {
    /// A frontier that was kept: `peaks` from the largest subtree to the smallest.
    pub fn new(size: u64, peaks: Vec<Hash>) -> Result<Self, FrontierError> {
        let expected = size.count_ones() as usize;
        if peaks.len() != expected {
            return Err(FrontierError { size, expected, found: peaks.len() });
        }
        Ok(Self { size, peaks })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Where in the tree the peaks are.
    pub fn peak_nodes(size: u64) -> Vec<Node> {
        let mut start = 0;
        (0..u64::BITS as u8)
            .rev()
            .filter(|level| size >> level & 1 == 1)
            .map(|level| {
                let node = Node { level, index: start >> level };
                start += 1 << level;
                node
            })
            .collect()
    }

    /// Appends a leaf and yields every subtree that it completed, smallest first: the leaf itself,
    /// then its ancestors.
    pub fn append(&mut self, leaf: Hash) -> Vec<(Node, Hash)> {
        let mut node = Node { level: 0, index: self.size };
        let mut complete = vec![(node, leaf)];
        let mut hash = leaf;
        while node.index & 1 == 1 {
            let left = self.peaks.pop().expect("an odd index has a complete left sibling");
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index >> 1 };
            complete.push((node, hash));
        }
        self.peaks.push(hash);
        self.size += 1;
        complete
    }

    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
            None => empty_root(),
        }
    }

    /// The inclusion path of the leaf that would be appended next, in the tree that ends with it.
    pub fn path_of_next(&self) -> Vec<Hash> {
        self.peaks.iter().rev().copied().collect()
    }
}

/// The root of the first `size` leaves.
pub fn root_of<E>(size: u64, mut read: impl FnMut(Node) -> Result<Hash, E>) -> Result<Hash, E> {
    if size == 0 { Ok(empty_root()) } else { range_hash(0, size, &mut read) }
}

/// PATH(index, D[size]) of RFC 6962, nearest sibling first. `None`: there is no such leaf.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut read: impl FnMut(Node) -> Result<Hash, E>,
) -> Option<Result<Vec<Hash>, E>> {
    if index >= size {
        return None;
    }
    let (mut low, mut high) = (0, size);
    let mut siblings = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            siblings.push((middle, high));
            high = middle;
        } else {
            siblings.push((low, middle));
            low = middle;
        }
    }
    Some(hashes(siblings, &mut read))
}

/// PROOF(old, D[new]) of RFC 6962. `None`: `old` is larger than `new`. Empty if one of them is
/// empty or both are the same.
pub fn consistency_proof<E>(
    old: u64,
    new: u64,
    mut read: impl FnMut(Node) -> Result<Hash, E>,
) -> Option<Result<Vec<Hash>, E>> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Ok(Vec::new()));
    }
    let (mut low, mut high) = (0, new);
    let mut whole = true;
    let mut ranges = Vec::new();
    while high > old {
        let middle = low + split(high - low);
        if old <= middle {
            ranges.push((middle, high));
            high = middle;
        } else {
            ranges.push((low, middle));
            low = middle;
            whole = false;
        }
    }
    if !whole {
        ranges.push((low, high));
    }
    Some(hashes(ranges, &mut read))
}

/// Whether `leaf` is the `index`-th of the tree of `size` leaves with this `root` (RFC 9162,
/// section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size || path.len() > MAX_PATH {
        return false;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            (position, last) = to_odd(position, last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the tree of `new` leaves continues the one of `old` leaves (RFC 9162, section
/// 2.1.4.2).
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> bool {
    if old > new || proof.len() > MAX_PATH + 1 {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let mut rest = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else {
        return false;
    };
    let (mut position, mut last) = (old - 1, new - 1);
    while position & 1 == 1 {
        position >>= 1;
        last >>= 1;
    }
    let (mut then, mut now) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            then = node_hash(sibling, &then);
            now = node_hash(sibling, &now);
            (position, last) = to_odd(position, last);
        } else {
            now = node_hash(&now, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && then == *old_root && now == *new_root
}

/// Climbs over the levels on which the node is its parent's only child.
fn to_odd(mut position: u64, mut last: u64) -> (u64, u64) {
    while position & 1 == 0 && position != 0 {
        position >>= 1;
        last >>= 1;
    }
    (position, last)
}

/// The largest power of two below `leaves`, which is at least 2.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// The hashes of ranges that were found from the root downward, deepest first.
fn hashes<E>(
    ranges: Vec<(u64, u64)>,
    read: &mut impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    ranges.into_iter().rev().map(|(low, high)| range_hash(low, high, read)).collect()
}

/// MTH(D[low:high]) of a range that a tree's splits make: `low` is a multiple of the largest power
/// of two in its length.
fn range_hash<E>(
    mut low: u64,
    high: u64,
    read: &mut impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let mut peaks = Vec::new();
    while low < high {
        let level = (high - low).ilog2() as u8;
        peaks.push(read(Node { level, index: low >> level })?);
        low += 1 << level;
    }
    let mut peaks = peaks.into_iter().rev();
    let last = peaks.next().expect("a range of a split is not empty");
    Ok(peaks.fold(last, |right, left| node_hash(&left, &right)))
}
