//! Tells one reason to be woken from all others: what seldom happens (a timer, a withdrawn
//! permission) is then not asked about each time that a byte moves. Called by the duplex.
//!
//! Never: a wake-up that is lost; a lock.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// Rings when a future that was polled with its waker wants to be polled again.
#[derive(Debug)]
pub(super) struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    /// Rung already: whoever listens must poll once to be heard.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { rung: AtomicBool::new(true), task: AtomicWaker::new() })
    }

    /// Whether it rang since the last time. `task` is woken when it rings again.
    pub(super) fn answer(&self, task: &Waker) -> bool {
        self.task.register(task);
        self.rung.load(Ordering::Acquire) && self.rung.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_answered_once_each_time_that_it_rings() {
        let bell = Bell::new();
        let waker = Waker::from(Arc::clone(&bell));
        assert!(bell.answer(Waker::noop()));
        assert!(!bell.answer(Waker::noop()));
        waker.wake_by_ref();
        assert!(bell.answer(Waker::noop()));
        assert!(!bell.answer(Waker::noop()));
    }
}
