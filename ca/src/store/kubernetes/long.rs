//! Commits that are too long for one write of the head: their long values are written in parts first,
//! each by a commit of its own, and the commit itself says where they rest. Parts that nothing
//! names are what a crash left; they are swept at a start.
//!
//! Never: a commit that names a part that is not there: it expects each of them.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use super::{Inner, values};
use crate::store::{Commit, Expect, StoreError, Write};

/// Most bytes of a commit that is written as it is.
pub(super) const SHORT_COMMIT_BYTES: usize = 64 * 1024;
/// Values up to here stay in the commit even then: 128 of them still fit into a head.
const SHORT_VALUE_BYTES: usize = 1024;
/// Bytes of one part, so that each is a short commit.
const PART_BYTES: usize = 48 * 1024;
/// Tries, if others swept parts away before they were named.
const MAX_TRIES: usize = 3;
/// Parts that are swept in one commit.
const SWEPT_AT_ONCE: usize = 64;

impl Inner {
    pub(super) async fn commit_long(
        &self,
        expects: &[Expect],
        writes: &[Write],
    ) -> Result<Commit, StoreError> {
        for _ in 0..MAX_TRIES {
            let (mut named, mut parts) = (Vec::new(), Vec::new());
            for write in writes {
                match write {
                    Write::Put(key, resting) if resting.len() > SHORT_VALUE_BYTES => {
                        let name = self.nonce();
                        let written = self.write_parts(name, &resting[1..]).await?;
                        let count = u32::try_from(written.len()).unwrap_or(u32::MAX);
                        named.push(Write::Put(key.clone(), values::in_parts(name, count)));
                        parts.extend(written);
                    }
                    write => named.push(write.clone()),
                }
            }
            let all: Vec<Expect> = expects.iter().cloned().chain(parts.iter().cloned()).collect();
            let commit = self.enqueue(all, named).await?;
            if matches!(commit, Commit::Committed { .. }) {
                return Ok(commit);
            }
            let whole = {
                let mirror = self.state.mirror();
                let there = |part: &Expect| part.key().is_some_and(|key| mirror.raw(key).is_some());
                parts.iter().all(there)
            };
            if whole {
                self.drop_parts(parts.iter().filter_map(Expect::key).map(str::to_owned)).await?;
                return Ok(Commit::Conflict);
            }
        }
        let last = "parts of a long value were swept each time".to_owned();
        Err(StoreError::KubernetesUnreachable { what: "a commit", last })
    }

    /// Their keys with their revisions, as expectations.
    async fn write_parts(&self, name: u64, value: &[u8]) -> Result<Vec<Expect>, StoreError> {
        let mut written = Vec::new();
        for (number, bytes) in (0..).zip(value.chunks(PART_BYTES)) {
            let key = values::part(name, number);
            let put = Write::Put(key.clone(), values::resting(bytes));
            match self.enqueue(vec![Expect::Absent(key.clone())], vec![put]).await? {
                Commit::Committed { revision } => written.push(Expect::Revision(key, revision)),
                Commit::Conflict => {
                    let why = format!("somebody else writes {key}");
                    return Err(StoreError::KubernetesState(why));
                }
            }
        }
        Ok(written)
    }

    async fn drop_parts(&self, keys: impl Iterator<Item = String>) -> Result<(), StoreError> {
        let keys: Vec<String> = keys.collect();
        for some in keys.chunks(SWEPT_AT_ONCE) {
            let writes = some.iter().cloned().map(Write::Delete).collect();
            // Nothing is expected: who needs them expects them.
            let _ = self.enqueue(Vec::new(), writes).await?;
        }
        Ok(())
    }

    /// Drops the parts that nothing names.
    pub(super) async fn sweep_parts(&self) -> Result<(), StoreError> {
        let orphans: Vec<String> = {
            let mirror = self.state.mirror();
            let named = |key: &String| values::parts(&mirror.raw(key)?.value).map(|it| it.0);
            let named: BTreeSet<u64> = mirror.keys(values::RECORDS).filter_map(named).collect();
            let orphan = |key: &&String| {
                values::name_of_part(key).is_some_and(|name| !named.contains(&name))
            };
            mirror.keys(values::PARTS).filter(orphan).cloned().collect()
        };
        self.drop_parts(orphans.into_iter()).await
    }
}
