//! Buffers that a thread's connections share: one is borrowed while bytes move and goes back
//! before the connection sleeps, so that ten thousand idle connections hold none. What must outlive
//! the poll (a partial record, bytes that a stalled socket did not take) is copied into a piece
//! of its exact size. Called by the two boxes of `records`.
//!
//! Never: a buffer kept by a connection that sleeps; bytes of one connection shown to the next
//! (a box hands out only ranges that it has filled itself).

// SPDX-License-Identifier: Apache-2.0

use std::cell::RefCell;

use super::seal::{HEADER, MAX_PLAINTEXT, TRAILER};

/// Records that one system call may move: enough to make its cost small beside the copying, few
/// enough that both boxes stay in a core's second-level cache.
pub(super) const MOST_RECORDS: usize = 8;
/// One full record of ours.
pub(super) const RECORD: usize = HEADER + MAX_PLAINTEXT + TRAILER;
/// A shared buffer: the records of one call and room for control frames before and after them.
pub(super) const BUFFER: usize = (MOST_RECORDS + 2) * RECORD;
/// Buffers that a thread keeps when nobody uses them. A connection that moves bytes uses two, one
/// connection is polled at a time, and a few more are dropped in the middle of a poll.
const MOST_KEPT: usize = 4;

thread_local! {
    static SHELF: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A shared buffer, on loan; it goes back when dropped.
#[derive(Debug)]
pub(super) struct Loan(Box<[u8]>);

impl Loan {
    fn take() -> Self {
        let kept = SHELF.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice()))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        SHELF.with_borrow_mut(|shelf| {
            if shelf.len() < MOST_KEPT {
                shelf.push(buffer);
            }
        });
    }
}

/// Where a box keeps its bytes.
#[derive(Debug, Default)]
pub(super) enum Store {
    #[default]
    Nothing,
    Shared(Loan),
    Own(Box<[u8]>),
}

impl Store {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Shared(loan) => &loan.0,
            Self::Own(own) => own,
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Nothing => &mut [],
            Self::Shared(loan) => &mut loan.0,
            Self::Own(own) => own,
        }
    }

    /// A shared buffer with bytes `from..to` at its front, or a longer one of its own if `room`
    /// more would not fit.
    pub(super) fn spread(&mut self, from: usize, to: usize, room: usize) {
        let held = to - from;
        if let Self::Shared(loan) = self
            && held + room <= loan.0.len()
        {
            loan.0.copy_within(from..to, 0);
            return;
        }
        let mut next = if held + room <= BUFFER {
            Self::Shared(Loan::take())
        } else {
            Self::Own(vec![0; held + room].into_boxed_slice())
        };
        next.bytes_mut()[..held].copy_from_slice(&self.bytes()[from..to]);
        *self = next;
    }

    /// Gives a shared buffer back and keeps only `from..to`. True if the bytes have moved to the
    /// front.
    pub(super) fn shrink(&mut self, from: usize, to: usize) -> bool {
        if from == to {
            *self = Self::Nothing;
            return true;
        }
        if let Self::Shared(loan) = self {
            *self = Self::Own(loan.0[from..to].into());
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_keeps_only_its_own_bytes_and_the_buffer_goes_back() {
        let mut store = Store::default();
        store.spread(0, 0, 10);
        store.bytes_mut()[..3].copy_from_slice(b"abc");
        assert!(store.shrink(1, 3));
        assert_eq!(store.bytes(), b"bc");
        assert_eq!(SHELF.with_borrow(Vec::len), 1);
        assert!(store.shrink(0, 0));
        assert!(store.bytes().is_empty());
    }

    #[test]
    fn more_than_a_shared_buffer_holds_gets_a_piece_of_its_own() {
        let mut store = Store::Own(vec![7; 4].into_boxed_slice());
        store.spread(1, 4, BUFFER);
        assert_eq!(store.bytes().len(), BUFFER + 3);
        assert_eq!(store.bytes()[..3], [7; 3]);
    }
}
