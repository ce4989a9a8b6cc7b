//! A commit as one etcd transaction, and what to make of one whose answer was lost.
//!
//! Never: reports a conflict with ourselves.

// SPDX-License-Identifier: Apache-2.0

use super::Etcd;
use super::cluster::request;
use super::stubs::TxnRequest;
use super::words;
use crate::store::{Commit, Expect, StoreError, Write};

impl Etcd {
    pub(super) async fn commit_now(
        &self,
        expects: &[Expect],
        writes: &[Write],
    ) -> Result<Commit, StoreError> {
        let transaction = TxnRequest {
            compare: expects.iter().map(|expect| self.words.compare(expect)).collect(),
            success: writes.iter().map(|write| self.words.write(write)).collect(),
            failure: Vec::new(),
        };
        let told = self.cluster.ask("a commit", |member| {
            let transaction = transaction.clone();
            async move { member.kv().txn(request(transaction)).await }
        });
        let told = told.await?;
        if told.answer.succeeded {
            return Ok(Commit::Committed { revision: words::revision(told.answer.header) });
        }
        if told.unsure { self.was_it_us(writes).await } else { Ok(Commit::Conflict) }
    }

    /// An earlier try may have succeeded without our hearing of it: then everything is there as we
    /// would have written it, by one commit. Records hold random serials and keys, so nobody else
    /// writes the very same.
    async fn was_it_us(&self, writes: &[Write]) -> Result<Commit, StoreError> {
        let keys: Vec<String> = writes.iter().map(|write| write.key().to_owned()).collect();
        let found = self.read_many_now(&keys).await?;
        let mut revisions = Vec::new();
        for (write, found) in writes.iter().zip(found) {
            match (write, found) {
                (Write::Put(_, value), Some(found)) if found.value == *value => {
                    revisions.push(found.revision);
                }
                (Write::Delete(_), None) => {}
                _ => return Ok(Commit::Conflict),
            }
        }
        match revisions.first() {
            Some(first) if revisions.iter().all(|revision| revision == first) => {
                Ok(Commit::Committed { revision: *first })
            }
            _ => Ok(Commit::Conflict),
        }
    }
}
