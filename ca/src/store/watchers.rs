//! Who watches what, in this process: every commit is told here, in the order in which commits
//! happened, and each watcher gets what starts with its prefix.
//!
//! Never: waits for a slow watcher; its watch ends and says so.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::store::{Change, Changes, MAX_UNREAD_CHANGES, StoreError, Versioned, Write};

/// Changes kept for watchers that resume: what happens while one reads a page, with room to spare.
const MAX_KEPT_CHANGES: usize = 4096;

pub(super) struct Watchers {
    known: Mutex<Known>,
}

struct Known {
    /// All changes of the commits after `kept_after`.
    kept: VecDeque<Arc<Change>>,
    kept_after: u64,
    watching: Vec<Watching>,
}

struct Watching {
    prefix: String,
    after: u64,
    sender: mpsc::Sender<Arc<Change>>,
}

impl Watchers {
    pub(super) fn new(revision: u64) -> Self {
        let (kept, watching) = (VecDeque::new(), Vec::new());
        Self { known: Mutex::new(Known { kept, kept_after: revision, watching }) }
    }

    pub(super) fn watch(&self, prefix: &str, after: u64) -> Result<Changes, StoreError> {
        let mut known = self.known();
        if after < known.kept_after {
            return Err(StoreError::Behind(after));
        }
        let (sender, receiver) = mpsc::channel(MAX_UNREAD_CHANGES);
        let watching = Watching { prefix: prefix.to_owned(), after, sender };
        let alive = known.kept.iter().all(|change| watching.tell(change));
        debug_assert!(alive, "less is kept than may be unread");
        known.watching.push(watching);
        let told = ReceiverStream::new(receiver).map(|change| Ok((*change).clone()));
        // The sender goes only when its watcher was too slow, or with the store.
        Ok(told.chain(stream::iter([Err(StoreError::Behind(after))])).boxed())
    }

    pub(super) fn publish(&self, revision: u64, writes: Vec<Write>) {
        let mut known = self.known();
        for write in writes {
            let (key, value) = match write {
                Write::Put(key, value) => (key, Some(value)),
                Write::Delete(key) => (key, None),
            };
            let now = value.map(|value| Versioned { revision, value });
            let change = Arc::new(Change { key, revision, now });
            known.watching.retain(|watching| watching.tell(&change));
            known.kept.push_back(change);
        }
        while known.kept.len() > MAX_KEPT_CHANGES {
            if let Some(oldest) = known.kept.pop_front() {
                known.kept_after = oldest.revision;
            }
        }
    }

    /// After the file was opened anew, at this revision. If that is not what was told last, nobody
    /// knows what he missed: every watch ends.
    pub(super) fn reopened(&self, revision: u64) {
        let mut known = self.known();
        let told = known.kept.back().map_or(known.kept_after, |change| change.revision);
        if revision != told {
            known.end(revision);
        }
    }

    /// What the commit with this revision wrote cannot be told: every watch ends.
    pub(super) fn lost(&self, revision: u64) {
        self.known().end(revision);
    }

    // A panic in here would be one of the allocator: there is no half-done state to hide.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn end(&mut self, revision: u64) {
        self.kept.clear();
        self.kept_after = revision;
        self.watching.clear();
    }
}

impl Watching {
    /// False if this watch is over: the reader has gone, or is too slow.
    fn tell(&self, change: &Arc<Change>) -> bool {
        if change.revision <= self.after || !change.key.starts_with(&self.prefix) {
            return !self.sender.is_closed();
        }
        self.sender.try_send(change.clone()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Vec<Write> {
        vec![Write::Put(key.to_owned(), vec![1])]
    }

    #[tokio::test]
    async fn watcher_that_reads_nothing_is_told_that_it_fell_behind() {
        let watchers = Watchers::new(0);
        let mut changes = watchers.watch("a", 0).unwrap();
        for revision in 1..=MAX_UNREAD_CHANGES as u64 + 1 {
            watchers.publish(revision, put("a"));
        }
        assert!(watchers.known().watching.is_empty());
        let mut read = 0;
        while let Some(Ok(_)) = changes.next().await {
            read += 1;
        }
        assert_eq!(read, MAX_UNREAD_CHANGES);
    }

    #[test]
    fn what_is_not_kept_any_more_cannot_be_watched_from() {
        let watchers = Watchers::new(7);
        assert!(matches!(watchers.watch("", 6), Err(StoreError::Behind(6))));
        for revision in 8..=8 + MAX_KEPT_CHANGES as u64 {
            watchers.publish(revision, put("b"));
        }
        assert!(matches!(watchers.watch("", 7), Err(StoreError::Behind(7))));
        assert!(watchers.watch("", 8).is_ok());
    }

    /// A commit whose answer was an error of the disk is there all the same.
    #[tokio::test]
    async fn watch_ends_when_the_file_has_a_commit_that_was_never_told() {
        let watchers = Watchers::new(0);
        watchers.publish(1, put("a"));
        let mut changes = watchers.watch("a", 0).unwrap();
        watchers.reopened(1);
        watchers.publish(2, put("a"));
        for revision in 1..=2 {
            assert_eq!(changes.next().await.unwrap().unwrap().revision, revision);
        }
        watchers.reopened(3);
        assert!(matches!(changes.next().await, Some(Err(StoreError::Behind(_)))));
        assert!(changes.next().await.is_none());
        assert!(watchers.watch("a", 2).is_err());
        let mut changes = watchers.watch("a", 3).unwrap();
        watchers.publish(4, put("a"));
        assert_eq!(changes.next().await.unwrap().unwrap().revision, 4);
    }

    #[test]
    fn watcher_that_has_gone_is_forgotten() {
        let watchers = Watchers::new(0);
        drop(watchers.watch("a", 0).unwrap());
        watchers.publish(1, put("b"));
        assert!(watchers.known().watching.is_empty());
    }
}
