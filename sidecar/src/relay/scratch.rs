//! One buffer a thread for bytes on their way from a socket into a record. A connection stays on
//! its thread and a poll never yields while it holds the buffer, so thousands of idle connections
//! share it. Called by the relays of this room.
//!
//! Never: keeps a byte from one use to the next reader (only what was just read is handed out).

// SPDX-License-Identifier: Apache-2.0

use std::cell::RefCell;

use crate::wire;

/// Four frames: one read system call for four records of bulk data.
pub(super) const SCRATCH: usize = 4 * wire::MAX_PAYLOAD;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Lends the thread's buffer to `work`.
pub(super) fn with<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with(|buffer| work(&mut buffer.borrow_mut()))
}
