//! The words between a machine and its driver: phases, what is due, and what a frame meant.
//! Called by everything in this room and by the relay.
//!
//! Never: a decision; a payload that is not borrowed from the driver's own buffer.

// SPDX-License-Identifier: Apache-2.0

use super::names::UseNumber;
use super::refuse::Refuse;

/// What the driver must do, besides moving data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing is due: read, or send what the workload says.
    Wait,
    /// Refresh the TLS traffic keys, then call [`Course::keys_refreshed`].
    RefreshKeys,
    /// Call [`Acceptor::retire`](super::Acceptor::retire): the budget is spent.
    Retire,
    /// Flush, send close_notify, read to the end within a deadline (feeding the machine), close.
    Close,
    /// Close with a TCP RST, now.
    Abort,
}

/// What [`Side::receive`](super::Side::receive) found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// No whole frame yet; the input must reach at least `need` bytes.
    Incomplete { need: usize },
    /// Acceptor only: the next frame belongs to a use that was not answered. Nothing was
    /// consumed. Accept, refuse or retire first, and read no more from the socket until then.
    Undecided,
    /// One frame. Drop `consumed` bytes from the front of the input when the event is dealt with.
    Event { event: Event<'a>, consumed: usize },
}

/// A legal frame, in the terms of the use that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The peer's hello: the version that both now speak, and the proof to be judged before
    /// anything else is received or opened.
    Hello { version: u16, proof: &'a [u8] },
    /// Acceptor: the dialer opened this use. Judge the peer, then accept, refuse or retire.
    Opened(UseNumber),
    /// Acceptor: an `open` that crossed our `retiring`. It needs no answer.
    OpenedTooLate(UseNumber),
    /// Dialer: the acceptor took the use.
    Accepted(UseNumber),
    /// Dialer: the acceptor did not take the use. The connection is retired.
    Refused(UseNumber, Refuse),
    /// Dialer: the acceptor takes no use above this one. Ask [`Dialer::fate`](super::Dialer::fate)
    /// whether a use that was just opened may be replayed.
    Retiring(UseNumber),
    /// Bytes of this use, and of no other. They are the last of the `consumed` bytes.
    Data { of: UseNumber, bytes: &'a [u8] },
    /// The peer says nothing more in this use.
    Fin(UseNumber),
    /// The peer gave this use up.
    Reset(UseNumber),
    /// The peer is done with this use, under new keys.
    Idle(UseNumber),
    /// Acceptor: a frame of a use that was not taken; it is dropped.
    Discarded,
}
