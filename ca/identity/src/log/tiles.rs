//! Tiles and entry bundles of c2sp.org/tlog-tiles: where a hash is found, how a resource is named,
//! what its bytes are. Called by the CA's log (writes and serves them) and by whoever reads a log.
//! Never: files or HTTP; a path here is text.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use super::tree::{Hash, Node, node_hash};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of the tree in one tile: 2^8 is [`TILE_WIDTH`].
const TILE_HEIGHT: u8 = 8;
/// Tile levels that a tree of less than 2^63 leaves can have.
const MAX_TILE_LEVEL: u8 = 7;
/// Bytes of a hash in a tile.
const HASH_BYTES: usize = 32;

/// A tile of hashes: the `index`-th at its level, `width` of them (1 to 256).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    pub level: u8,
    pub index: u64,
    pub width: u16,
}

/// Whatever a log serves, by its path below the log's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Checkpoint,
    Hashes(Tile),
    /// A bundle of entries: index and width as those of a tile at level 0.
    Entries {
        index: u64,
        width: u16,
    },
}

impl Tile {
    /// The tiles that exist in a tree of `size` leaves and are not full: one a level at most.
    pub fn partial_of(size: u64) -> Vec<Self> {
        (0..=MAX_TILE_LEVEL)
            .filter_map(|level| {
                let hashes = size >> (TILE_HEIGHT * level);
                let width = (hashes % u64::from(TILE_WIDTH)) as u16;
                (width > 0).then_some(Self { level, index: hashes >> TILE_HEIGHT, width })
            })
            .collect()
    }
}

/// The tile in which a tree of `size` leaves keeps what `node` is made of, as wide as it is there.
/// `None`: the tree is too small to have the node.
pub fn tile_holding(node: Node, size: u64) -> Option<Tile> {
    let end = node.index.checked_add(1)?.checked_shl(u32::from(node.level))?;
    if end > size || end >> node.level != node.index + 1 {
        return None;
    }
    let level = node.level / TILE_HEIGHT;
    let index = node.index >> (TILE_HEIGHT - node.level % TILE_HEIGHT);
    let hashes = size >> (TILE_HEIGHT * level);
    let width = (hashes - (index << TILE_HEIGHT)).min(u64::from(TILE_WIDTH)) as u16;
    Some(Tile { level, index, width })
}

/// The node's hash out of the hashes of the tile that holds it.
pub fn node_in_tile(node: Node, hashes: &[Hash]) -> Option<Hash> {
    let height = node.level % TILE_HEIGHT;
    let first = usize::try_from(node.index << height).ok()? % usize::from(TILE_WIDTH);
    let mut row = hashes.get(first..first + (1 << height))?.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    row.pop()
}

/// A tile's bytes as hashes. `None`: not whole hashes, none, or too many.
pub fn hashes_of_tile(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    let bounded = (1..=usize::from(TILE_WIDTH)).contains(&hashes.len()) && rest.is_empty();
    bounded.then(|| hashes.iter().copied().map(Hash).collect())
}

/// Entries as a bundle. `None`: an entry does not fit its length prefix.
pub fn encode_bundle<'a, I>(entries: I) -> Option<Vec<u8>>
where
    I: IntoIterator<Item = &'a [u8], IntoIter: Clone>,
{
    let entries = entries.into_iter();
    // Its size is known beforehand: a quarter of a megabyte that grows by doubling is copied thrice.
    let mut out = Vec::with_capacity(entries.clone().map(|entry| 2 + entry.len()).sum());
    for entry in entries {
        out.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        out.extend(entry);
    }
    Some(out)
}

/// The entries of a bundle. `None`: its bytes are not 1 to 256 whole entries.
pub fn decode_bundle(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bytes = rest;
    }
    let bounded = (1..=usize::from(TILE_WIDTH)).contains(&entries.len()) && bytes.is_empty();
    bounded.then_some(entries)
}

impl Resource {
    /// Reads the path below a log's prefix, without a leading slash; one spelling for each resource.
    pub fn parse(path: &str) -> Option<Self> {
        // The longest: 64 bits of index in groups of three digits.
        const MAX_PATH_BYTES: usize = 64;
        if path == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        if path.len() > MAX_PATH_BYTES {
            return None;
        }
        let (kind, place) = path.strip_prefix("tile/")?.split_once('/')?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, width.parse().ok()?),
            None => (place, TILE_WIDTH),
        };
        let index = index_of(place)?;
        let resource = if kind == "entries" {
            Self::Entries { index, width }
        } else {
            Self::Hashes(Tile { level: kind.parse().ok()?, index, width })
        };
        // Signs, leading zeros, `.p/256` and levels that no tree has fall here.
        (resource.is_possible() && resource.to_string() == path).then_some(resource)
    }

    fn is_possible(&self) -> bool {
        match self {
            Self::Checkpoint => true,
            Self::Hashes(tile) => {
                tile.level <= MAX_TILE_LEVEL && (1..=TILE_WIDTH).contains(&tile.width)
            }
            Self::Entries { width, .. } => (1..=TILE_WIDTH).contains(width),
        }
    }

    /// Whether a tree of `size` leaves has, or once had, this resource.
    pub fn exists_at(&self, size: u64) -> bool {
        let (level, index, width) = match *self {
            Self::Checkpoint => return true,
            Self::Hashes(tile) => (tile.level, tile.index, tile.width),
            Self::Entries { index, width } => (0, index, width),
        };
        let hashes = size >> (TILE_HEIGHT * level);
        index
            .checked_mul(u64::from(TILE_WIDTH))
            .and_then(|first| first.checked_add(u64::from(width)))
            .is_some_and(|end| end <= hashes)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        place(f, self.index, self.width)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Hashes(tile) => tile.fmt(f),
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                place(f, *index, *width)
            }
        }
    }
}

/// `x001/x234/067`, and the width if it is not the full one.
fn place(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    while let Some(group) = groups.pop() {
        let (mark, after) = if groups.is_empty() { ("", "") } else { ("x", "/") };
        write!(f, "{mark}{group:03}{after}")?;
    }
    if width == TILE_WIDTH { Ok(()) } else { write!(f, ".p/{width}") }
}

fn index_of(place: &str) -> Option<u64> {
    place.split('/').try_fold(0_u64, |index, group| {
        let digits = group.strip_prefix('x').unwrap_or(group);
        index
            .checked_mul(1000)?
            .checked_add(digits.parse::<u16>().ok().filter(|n| *n < 1000)?.into())
    })
}
