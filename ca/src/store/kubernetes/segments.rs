//! What makes room in the head: its oldest commits move into the last segment of the log; a full
//! segment gets a successor; and the oldest segment is cleaned away by moving what still lives in it.
//!
//! A segment is written before the head that counts on it, and only ever with more than it had, so
//! that a crash in between leaves entries that are there twice and nothing else. Every entry in
//! a segment was committed before. An older copy of a key always lies before what replaced or
//! deleted it: what moves is judged at the very head that names the segment it moves to.
//!
//! Never: a segment of the log that is written with less than it had.

// SPDX-License-Identifier: Apache-2.0

use prost::Message as _;

use super::Inner;
use super::client::Failure;
use super::mirror::Mirror;
use super::shape::{Entry, Head, Place, Segment};

/// From here on commits leave the head: some fifteen issues. Each write of the head carries this
/// at most, beside what it adds.
pub(super) const SPILL_AT: usize = 64 * 1024;
/// What stays in it then, so that a replica that is a moment late need not read segments.
const KEPT_IN_HEAD: usize = 24 * 1024;
/// Bytes of one segment: what a Secret holds (1 MiB), with room for the encoding.
pub(super) const SEGMENT_BYTES: usize = 900 * 1024;
/// Segments: 225 MiB, and as many names in the role of the service account.
pub(super) const MAX_SEGMENTS: u32 = 256;
/// The log may be this many times as long as what lives in it.
const LOG_FACTOR: usize = 2;
/// And this many segments more, so that a small store is not cleaned all the time.
const LOG_SPARE: usize = 4;

/// One of so many new segments takes new commits at once, whatever waits to be cleaned, so that no
/// commit waits for more than two cleanings.
const CLEANED_OF: u64 = 3;

/// Something to do before the next commit, at one head.
pub(super) struct Spill {
    head: Head,
    version: String,
    live_bytes: usize,
}

impl Spill {
    pub(super) fn needed(mirror: &Mirror) -> Option<Self> {
        (mirror.head.tail_bytes() > SPILL_AT).then(|| Self {
            head: mirror.head.clone(),
            version: mirror.version.clone(),
            live_bytes: mirror.bytes(),
        })
    }

    /// Whether the oldest segment should go.
    fn wants_cleaning(&self) -> bool {
        let count = self.head.segments.len();
        let log = count * SEGMENT_BYTES;
        let enough = LOG_FACTOR * self.live_bytes + LOG_SPARE * SEGMENT_BYTES;
        let turn = !self.head.births.is_multiple_of(CLEANED_OF);
        count > 1 && (log > enough && turn || count + 2 > MAX_SEGMENTS as usize)
    }

    /// The oldest commits, so many that the head is small again.
    fn leaving(&self) -> usize {
        let mut left = self.head.tail_bytes();
        let goes = |commit: &&super::shape::Committed| {
            let long = left > KEPT_IN_HEAD;
            left -= commit.encoded_len().min(left);
            long
        };
        self.head.tail.iter().take_while(goes).count()
    }
}

impl Inner {
    /// One step; whoever asked looks again whether more is needed.
    pub(super) async fn spill(&self, spill: Spill) -> Result<(), Failure> {
        let Some(open) = spill.head.segments.last().cloned() else {
            return self.open_segment(spill).await;
        };
        let (segment, version) = match self.state.secrets.segment(open.index).await {
            // Somebody is ahead of us, and so is the head.
            Ok((segment, _)) if segment.birth > open.birth => return Err(Failure::Conflict),
            Ok((segment, version)) if segment.birth == open.birth => (segment, Some(version)),
            Ok((_, version)) => (Segment::new(open.birth), Some(version)),
            Err(Failure::Missing) => (Segment::new(open.birth), None),
            Err(failure) => return Err(failure),
        };
        if segment.entries.is_empty() && spill.wants_cleaning() {
            return self.clean(spill, open, segment, version).await;
        }
        let leaving = spill.leaving();
        let mut grown = segment.clone();
        let commits = &spill.head.tail[..leaving];
        grown.add(commits.iter().flat_map(|commit| commit.entries.iter().cloned()));
        if grown.encoded_len() > SEGMENT_BYTES && !segment.entries.is_empty() {
            return self.open_segment(spill).await;
        }
        let mut head = spill.head;
        head.spilled = head.tail[leaving - 1].revision;
        head.tail.drain(..leaving);
        self.write_both(head, &spill.version, open, grown, version).await
    }

    /// The log gets another segment, which is empty whatever its Secret holds.
    async fn open_segment(&self, spill: Spill) -> Result<(), Failure> {
        let mut head = spill.head;
        let free = |index: &u32| !head.segments.iter().any(|place| place.index == *index);
        let index = (0..MAX_SEGMENTS).find(free);
        // What lives is bounded so that cleaning always finds room before this.
        let full = || Failure::Again("every segment is taken".to_owned());
        let index = index.ok_or_else(full)?;
        head.births += 1;
        head.segments.push(Place { index, birth: head.births, stamp: 0 });
        head.turn += 1;
        self.state.put_head(head, &spill.version).await
    }

    /// What lives in the oldest segment moves into the last one, which is empty; the oldest leaves the
    /// log. Deletions that it tells of leave with it: nothing older is left that they could hide.
    async fn clean(
        &self,
        spill: Spill,
        open: Place,
        empty: Segment,
        version: Option<String>,
    ) -> Result<(), Failure> {
        let oldest = &spill.head.segments[0];
        let old = match self.state.secrets.segment(oldest.index).await {
            Ok((segment, _)) if segment.birth == oldest.birth => segment,
            Ok((segment, _)) if segment.birth > oldest.birth => return Err(Failure::Conflict),
            Ok(_) | Err(Failure::Missing) => Segment::new(oldest.birth),
            Err(failure) => return Err(failure),
        };
        let living: Vec<Entry> = {
            let mirror = self.state.mirror();
            old.entries.into_iter().filter(|entry| mirror.lives(entry)).collect()
        };
        let mut grown = empty;
        grown.add(living);
        let mut head = spill.head;
        head.segments.remove(0);
        self.write_both(head, &spill.version, open, grown, version).await
    }

    /// The last segment, then the head that counts on it.
    async fn write_both(
        &self,
        mut head: Head,
        head_version: &str,
        open: Place,
        mut segment: Segment,
        segment_version: Option<String>,
    ) -> Result<(), Failure> {
        segment.stamp = segment.stamp.max(open.stamp) + 1;
        let secrets = &self.state.secrets;
        secrets.put_segment(open.index, &segment, segment_version.as_deref()).await?;
        if let Some(last) = head.segments.last_mut() {
            last.stamp = segment.stamp;
        }
        head.turn += 1;
        self.state.put_head(head, head_version).await
    }
}
