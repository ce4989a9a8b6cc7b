//! Commits that wait to be written, whatever the store: the disk of this machine, etcd, Secrets of
//! Kubernetes. Whoever comes while a group is being written waits for the next: as many as came
//! meanwhile then share one fsync, or what the store takes in one request.
//!
//! Never: waits, or reorders.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::store::{Commit, Expect, StoreError, Write};

/// Commits that are taken out of the line together. On disk they are one transaction: at ten
/// microseconds a write, a group of issues is there within 20 ms, and a fsync costs each of them a
/// hundredth of itself. Secrets of Kubernetes take it in writes of the head of up to 128 KiB each.
pub(super) const MAX_GROUP: usize = 256;
/// Commits that may wait: sixteen groups, under half a second on a slow disk, some seconds over a
/// network. Beyond, callers are refused at once and come again.
pub(super) const MAX_WAITING: usize = 4096;

/// One commit and who waits for it.
pub(super) struct Waiting {
    pub(super) expects: Vec<Expect>,
    pub(super) writes: Vec<Write>,
    pub(super) told: oneshot::Sender<Result<Commit, StoreError>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody writes: whoever got this place must.
    First,
    /// Somebody writes, and will come to it.
    Behind,
}

#[derive(Default)]
pub(super) struct Queue {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    written: bool,
}

impl Queue {
    pub(super) fn enter(&self, waiting: Waiting) -> Result<Place, StoreError> {
        let mut line = self.line();
        if line.waiting.len() >= MAX_WAITING {
            return Err(StoreError::Busy(line.waiting.len()));
        }
        line.waiting.push_back(waiting);
        Ok(if std::mem::replace(&mut line.written, true) { Place::Behind } else { Place::First })
    }

    /// The next commits to write together. None: nothing waits, and the next to enter is first.
    pub(super) fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut line = self.line();
        let size = line.waiting.len().min(MAX_GROUP);
        line.written = size > 0;
        (size > 0).then(|| line.waiting.drain(..size).collect())
    }

    /// Whether as many wait as are written together.
    pub(super) fn fills_a_group(&self) -> bool {
        self.line().waiting.len() >= MAX_GROUP
    }

    // Nothing in here panics halfway: each change is one push or drain.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> (Waiting, oneshot::Receiver<Result<Commit, StoreError>>) {
        let (told, verdict) = oneshot::channel();
        (Waiting { expects: vec![], writes: vec![], told }, verdict)
    }

    #[test]
    fn one_writes_the_others_wait_and_the_line_is_bounded() {
        let queue = Queue::default();
        assert_eq!(queue.enter(waiting().0).unwrap(), Place::First);
        for _ in 1..MAX_WAITING {
            assert_eq!(queue.enter(waiting().0).unwrap(), Place::Behind);
        }
        assert!(matches!(queue.enter(waiting().0), Err(StoreError::Busy(MAX_WAITING))));
        for _ in 0..MAX_WAITING / MAX_GROUP {
            assert!(queue.fills_a_group());
            assert_eq!(queue.next_group().unwrap().len(), MAX_GROUP);
        }
        assert!(!queue.fills_a_group() && queue.next_group().is_none());
        assert_eq!(queue.enter(waiting().0).unwrap(), Place::First, "the writer had left");
    }
}
