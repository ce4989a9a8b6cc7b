//! Everything that is stored, as of one head: what reads are answered from once that head is known to
//! be the latest. Pure.
//!
//! Never: answers by itself; whoever asks has made sure of the head first.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, HashMap};

use super::shape::{Entry, Head, Place, Segment};
use super::values;
use crate::store::{MAX_LIST, StoreError, Versioned};

/// The state at one head.
#[derive(Default)]
pub(super) struct Mirror {
    pub(super) head: Head,
    /// The `resourceVersion` under which the head was read or written.
    pub(super) version: String,
    stored: BTreeMap<String, Versioned>,
    bytes: usize,
}

/// A newer head's tail does not reach back to what we know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap;

impl Mirror {
    /// From the log of this head; each segment [is](Segment::is) what the head names.
    pub(super) fn build<'a>(
        head: Head,
        version: String,
        segments: impl Iterator<Item = &'a Segment>,
    ) -> Self {
        let mut latest: HashMap<&str, &Entry> = HashMap::new();
        for entry in segments.flat_map(|segment| &segment.entries) {
            let known = latest.entry(&entry.key).or_insert(entry);
            if entry.revision > known.revision {
                *known = entry;
            }
        }
        let mut mirror = Self { version, ..Self::default() };
        for entry in latest.into_values() {
            mirror.apply(entry);
        }
        for entry in head.tail.iter().flat_map(|commit| &commit.entries) {
            mirror.apply(entry);
        }
        mirror.head = head;
        mirror
    }

    /// Goes on to a newer head; what it brings is told in order. An older one is nothing new.
    pub(super) fn follow(&mut self, head: Head, version: String) -> Result<Vec<Told>, Gap> {
        if head == self.head {
            // Only its metadata changed (a label, another encryption at rest): this is its version now.
            self.version = version;
            return Ok(Vec::new());
        }
        if head.turn <= self.head.turn {
            return Ok(Vec::new());
        }
        if head.spilled > self.head.revision {
            return Err(Gap);
        }
        let from = self.head.revision;
        let mut told = Vec::new();
        for commit in head.tail.iter().filter(|commit| commit.revision > from) {
            for entry in &commit.entries {
                self.apply(entry);
            }
            told.extend(commit.entries.iter().map(|entry| self.told(entry)));
        }
        (self.head, self.version) = (head, version);
        Ok(told)
    }

    /// Goes on over a gap: all segments that changed meanwhile, and no segment of ours is gone.
    pub(super) fn catch_up(&mut self, head: Head, version: String, changed: &[Segment]) {
        let from = self.head.revision;
        let newer = |entry: &&Entry| entry.revision > from;
        let mut entries: Vec<&Entry> =
            changed.iter().flat_map(|segment| &segment.entries).filter(newer).collect();
        entries.extend(head.tail.iter().flat_map(|commit| &commit.entries).filter(newer));
        entries.sort_by_key(|entry| entry.revision);
        for entry in entries {
            self.apply(entry);
        }
        (self.head, self.version) = (head, version);
    }

    /// Which segments of a newer head must be read to catch up. None: all of them, since one of ours
    /// has left the log, and with it what was said there of deletions.
    pub(super) fn changed<'a>(&self, head: &'a Head) -> Option<Vec<&'a Place>> {
        if !self.head.segments.iter().all(|place| head.holds(place)) {
            return None;
        }
        let known = |place: &Place| self.head.segments.iter().any(|ours| ours == place);
        Some(head.segments.iter().filter(|place| !known(place)).collect())
    }

    fn apply(&mut self, entry: &Entry) {
        let size = |key: &str, value: &[u8]| key.len() + value.len() + 16;
        let before = match &entry.value {
            Some(value) => {
                self.bytes += size(&entry.key, value);
                let versioned = Versioned { revision: entry.revision, value: value.clone() };
                self.stored.insert(entry.key.clone(), versioned)
            }
            None => self.stored.remove(&entry.key),
        };
        if let Some(before) = before {
            self.bytes -= size(&entry.key, &before.value);
        }
    }

    fn told(&self, entry: &Entry) -> Told {
        let now = entry.value.as_ref().map_or(Ok(None), |_| self.read(&entry.key));
        let now = now.map(|now| now.map(|it| it.value)).map_err(|_| Broken);
        Told { key: entry.key.clone(), revision: entry.revision, now }
    }

    /// What rests under a stored key, as it rests.
    pub(super) fn raw(&self, key: &str) -> Option<&Versioned> {
        self.stored.get(key)
    }

    /// The value under a stored key, put together if it rests in parts.
    pub(super) fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.raw(key).map(|raw| self.whole(key, raw)).transpose()
    }

    fn whole(&self, key: &str, raw: &Versioned) -> Result<Versioned, StoreError> {
        let part = |key: &str| self.raw(key).map(|part| part.value.as_slice());
        let missing = || {
            let key = key.strip_prefix(values::RECORDS).unwrap_or(key);
            StoreError::KubernetesState(format!("a part of {key:?} is missing"))
        };
        let value = values::whole(&raw.value, part).ok_or_else(missing)?;
        Ok(Versioned { revision: raw.revision, value })
    }

    /// As [`crate::store::Store::list`], with stored keys.
    pub(super) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        bound: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let first = match after {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        self.stored
            .range::<str, _>((first, Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(bound.min(MAX_LIST))
            .map(|(key, raw)| Ok((key.clone(), self.whole(key, raw)?)))
            .collect()
    }

    /// Stored keys that start so.
    pub(super) fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a String> {
        use std::ops::Bound::{Included, Unbounded};
        let from = self.stored.range::<str, _>((Included(prefix), Unbounded));
        from.map(|(key, _)| key).take_while(move |key| key.starts_with(prefix))
    }

    /// Whether this entry is what its key has now.
    pub(super) fn lives(&self, entry: &Entry) -> bool {
        let stored = self.stored.get(&entry.key);
        entry.value.is_some() && stored.is_some_and(|it| it.revision == entry.revision)
    }

    /// Bytes of all that lives.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One change, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) key: String,
    pub(super) revision: u64,
    pub(super) now: Result<Option<Vec<u8>>, Broken>,
}

/// A value of which a part is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;
