//! Commits that are too long for one write of the head: their long values are written in parts first,
//! each by a commit of its own, and the commit itself says where they rest.
//!
//! As long as nothing names the parts of a value a *marker* stands beside them: each part writes it
//! anew, the commit that names them expects and deletes it, and so does whoever sweeps away what a
//! crash left. So one of the two happens, and the other finds out.
//!
//! Never: parts without a marker that nothing names, or a named part that is not there.

// SPDX-License-Identifier: Apache-2.0

use futures_util::future::join_all;

use super::{Inner, values};
use crate::store::{Commit, Expect, StoreError, Write};

/// Most bytes of a commit that is written as it is.
pub(super) const SHORT_COMMIT_BYTES: usize = 64 * 1024;
/// Values up to here stay in the commit even then: 128 of them still fit into a head.
const SHORT_VALUE_BYTES: usize = 1024;
/// Bytes of one part, so that each is a short commit.
const PART_BYTES: usize = 48 * 1024;
/// Tries, if others swept parts away before they were named: as many replicas as start at once.
const MAX_TRIES: usize = 8;
/// Values whose parts are dropped at the same time.
const SWEPT_AT_ONCE: usize = 64;

/// The parts of one value, which nothing names yet.
struct Unnamed {
    /// Its key, and the revision of the part that was written last.
    marker: (String, u64),
    resting: Vec<u8>,
}

impl Inner {
    pub(super) async fn commit_long(
        &self,
        expects: &[Expect],
        writes: &[Write],
    ) -> Result<Commit, StoreError> {
        for _ in 0..MAX_TRIES {
            let (mut named, mut markers) = (Vec::new(), Vec::new());
            for write in writes {
                match write {
                    Write::Put(key, resting) if resting.len() > SHORT_VALUE_BYTES => {
                        let Some(parts) = self.write_parts(&resting[1..]).await? else { break };
                        named.push(Write::Put(key.clone(), parts.resting));
                        markers.push(parts.marker);
                    }
                    write => named.push(write.clone()),
                }
            }
            let written = named.len() == writes.len();
            if written {
                let mut all = expects.to_vec();
                all.extend(markers.iter().map(expected));
                named.extend(markers.iter().map(|(key, _)| Write::Delete(key.clone())));
                let commit = self.enqueue(all, named).await?;
                if matches!(commit, Commit::Committed { .. }) {
                    return Ok(commit);
                }
            }
            let whole = written && self.stand(&markers);
            self.drop_unnamed(markers).await?;
            if whole {
                return Ok(Commit::Conflict);
            }
        }
        let last = "parts of a long value were swept each time".to_owned();
        Err(StoreError::KubernetesUnreachable { what: "a commit", last })
    }

    /// Under a name of their own. None: they were swept before the last was written.
    async fn write_parts(&self, value: &[u8]) -> Result<Option<Unnamed>, StoreError> {
        let (name, mut count, mut last) = (self.nonce(), 0, None);
        let marker = values::marker(name);
        for bytes in value.chunks(PART_BYTES) {
            let key = values::part(name, count);
            let stands = match last {
                None => Expect::Absent(marker.clone()),
                Some(revision) => Expect::Revision(marker.clone(), revision),
            };
            let puts = vec![
                Write::Put(marker.clone(), values::resting(&[])),
                Write::Put(key.clone(), values::resting(bytes)),
            ];
            match self.enqueue(vec![Expect::Absent(key), stands], puts).await? {
                Commit::Committed { revision } => last = Some(revision),
                Commit::Conflict => return Ok(None),
            }
            count += 1;
        }
        let resting = values::in_parts(name, count);
        Ok(last.map(|revision| Unnamed { marker: (marker, revision), resting }))
    }

    /// Whether nobody has swept any of these, nor named them.
    fn stand(&self, markers: &[(String, u64)]) -> bool {
        let mirror = self.state.mirror();
        markers.iter().all(|(key, at)| mirror.raw(key).is_some_and(|it| it.revision == *at))
    }

    /// Drops parts, unless they were named or added to meanwhile.
    async fn drop_unnamed(&self, markers: Vec<(String, u64)>) -> Result<(), StoreError> {
        for some in markers.chunks(SWEPT_AT_ONCE) {
            let drops = some.iter().map(|marker| {
                let parts = values::parts_beside(&marker.0);
                let mut gone: Vec<Write> = {
                    let mirror = self.state.mirror();
                    mirror.keys(&parts).cloned().map(Write::Delete).collect()
                };
                gone.push(Write::Delete(marker.0.clone()));
                self.enqueue(vec![expected(marker)], gone)
            });
            for dropped in join_all(drops).await {
                let _ = dropped?;
            }
        }
        Ok(())
    }

    /// Drops the parts that nothing names: what a crash left, and what is being written at this moment,
    /// whose writer begins again.
    pub(super) async fn sweep_parts(&self) -> Result<(), StoreError> {
        let left: Vec<(String, u64)> = {
            let mirror = self.state.mirror();
            let at = |key: &String| Some((key.clone(), mirror.raw(key)?.revision));
            mirror.keys(values::MARKERS).filter_map(at).collect()
        };
        self.drop_unnamed(left).await
    }
}

fn expected((key, revision): &(String, u64)) -> Expect {
    Expect::Revision(key.clone(), *revision)
}
