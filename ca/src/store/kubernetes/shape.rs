//! What our Secrets hold: the head, and segments of the log behind it. Pure. Used by the other files
//! of this folder.
//!
//! Never: a shape that another version may have written is guessed at.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;

use prost::Message;

use crate::store::StoreError;

/// The only format so far.
const FORMAT: u32 = 1;

/// The one Secret whose `resourceVersion` serialises everything.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    /// Grows with each write of the head, so that an older one is known as such.
    #[prost(uint64, tag = "2")]
    pub(super) turn: u64,
    /// Of the latest commit.
    #[prost(uint64, tag = "3")]
    pub(super) revision: u64,
    /// Commits up to this revision are in segments; `tail` has all that came later.
    #[prost(uint64, tag = "4")]
    pub(super) spilled: u64,
    #[prost(uint64, tag = "5")]
    pub(super) births: u64,
    /// The log, oldest first; only the last one is added to.
    #[prost(message, repeated, tag = "6")]
    pub(super) segments: Vec<Place>,
    #[prost(message, repeated, tag = "7")]
    pub(super) tail: Vec<Committed>,
}

/// A segment that is part of the log.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Place {
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    /// Which life of that Secret is meant: what it held in an earlier one does not count.
    #[prost(uint64, tag = "2")]
    pub(super) birth: u64,
    /// It has been written at least so often in this life.
    #[prost(uint64, tag = "3")]
    pub(super) stamp: u64,
}

/// A Secret full of entries, all of them committed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Segment {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    #[prost(uint64, tag = "2")]
    pub(super) birth: u64,
    #[prost(uint64, tag = "3")]
    pub(super) stamp: u64,
    #[prost(message, repeated, tag = "4")]
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Committed {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
    /// By what its author knows it again when the answer was lost.
    #[prost(uint64, tag = "2")]
    pub(super) nonce: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(uint64, tag = "2")]
    pub(super) revision: u64,
    /// None: deleted.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) value: Option<Vec<u8>>,
}

impl Head {
    pub(super) fn new() -> Self {
        Self { format: FORMAT, turn: 1, ..Self::default() }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let head = Self::decode(bytes).map_err(|error| unread("head", &error.to_string()))?;
        if head.format != FORMAT || head.turn == 0 {
            return Err(unread("head", "it is of another version of this CA"));
        }
        Ok(head)
    }

    /// Bytes of the commits that are in no segment yet.
    pub(super) fn tail_bytes(&self) -> usize {
        self.tail.iter().map(Message::encoded_len).sum()
    }

    pub(super) fn holds(&self, place: &Place) -> bool {
        self.segments.iter().any(|it| it.index == place.index && it.birth == place.birth)
    }
}

impl Segment {
    pub(super) fn new(birth: u64) -> Self {
        Self { format: FORMAT, birth, ..Self::default() }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let segment = Self::decode(bytes).map_err(|error| unread("segment", &error.to_string()))?;
        if segment.format != FORMAT {
            return Err(unread("segment", "it is of another version of this CA"));
        }
        Ok(segment)
    }

    /// Whether this is that life of it, as whole as the head knows it.
    pub(super) fn is(&self, place: &Place) -> bool {
        self.birth == place.birth && self.stamp >= place.stamp
    }

    /// Adds committed entries. Of each key only the latest stays: it says all that an older one of the
    /// same segment could.
    pub(super) fn add(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries.extend(entries);
        let mut latest: HashMap<&str, u64> = HashMap::new();
        for entry in &self.entries {
            let known = latest.entry(&entry.key).or_default();
            *known = (*known).max(entry.revision);
        }
        let keep: Vec<bool> =
            self.entries.iter().map(|entry| latest[entry.key.as_str()] == entry.revision).collect();
        let mut keep = keep.into_iter();
        self.entries.retain(|_| keep.next().unwrap_or(true));
        // One that came twice, by a spill that was repeated.
        self.entries.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        self.entries.dedup_by(|a, b| a.key == b.key && a.revision == b.revision);
    }
}

fn unread(what: &str, why: &str) -> StoreError {
    StoreError::KubernetesState(format!("the {what} cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, revision: u64, value: Option<&[u8]>) -> Entry {
        Entry { key: key.to_owned(), revision, value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn segment_keeps_the_latest_of_each_key_and_each_only_once() {
        let mut segment = Segment::new(1);
        segment.add([entry("a", 1, Some(b"1")), entry("b", 2, Some(b"2"))]);
        segment.add([entry("a", 3, None), entry("b", 2, Some(b"2"))]);
        // What is older than it has already is moved in too late.
        segment.add([entry("a", 1, Some(b"1"))]);
        assert_eq!(segment.entries, [entry("b", 2, Some(b"2")), entry("a", 3, None)]);
    }

    #[test]
    fn what_another_version_wrote_or_nobody_is_refused() {
        let head = Head { format: 2, turn: 1, ..Head::default() };
        for bytes in [head.encode_to_vec(), vec![], vec![0xff; 9]] {
            assert!(matches!(Head::read(&bytes), Err(StoreError::KubernetesState(_))));
        }
        assert!(Head::read(&Head::new().encode_to_vec()).is_ok());
        assert!(Segment::read(&[]).is_err());
    }

    #[test]
    fn place_means_one_life_that_is_whole() {
        let place = Place { index: 0, birth: 3, stamp: 2 };
        for (birth, stamp, is) in [(3, 2, true), (3, 3, true), (3, 1, false), (2, 9, false)] {
            assert_eq!(
                Segment { birth, stamp, ..Segment::new(0) }.is(&place),
                is,
                "{birth} {stamp}"
            );
        }
    }
}
