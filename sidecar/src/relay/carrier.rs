//! What carries one use, whichever way its bytes are framed: the shape that the duplex drives, the
//! steps it is told, and why it may stop. Implemented by `Link` and `Bare`.
//!
//! Never: a socket, a timer, a decision.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::records::{RecordError, Records};
use crate::wire::{self, Misuse, Refuse, Side, Violation};

/// What carries a use over a mesh connection: `Link` or `Bare`.
pub trait Carrier {
    type Framing: Framing;
    /// A use is followed by what settles the connection, which sends what is pending.
    const SETTLES: bool;

    fn records(&mut self) -> &mut Records;
    /// The records, and what goes in front of each piece of payload in them.
    fn parts(&mut self) -> (&mut Records, &mut Self::Framing);
    /// Judges the plaintext at hand, which is not empty, and consumes all but payload.
    fn step(&mut self) -> Result<Step, LinkError>;
    fn send_fin(&mut self) -> Result<(), LinkError>;
    fn send_reset(&mut self);
    fn may_send(&self) -> bool;
    /// The peer said close_notify.
    fn peer_closed(&mut self) -> Result<Step, LinkError>;
}

/// What goes in front of a piece of payload.
pub trait Framing {
    /// Its length, at most `wire::HEADER_LEN`.
    const HEAD: usize;

    /// The header of `length` bytes, which are sent at once.
    fn header(&mut self, length: usize) -> Result<[u8; wire::HEADER_LEN], LinkError>;
}

/// A machine of `myelin/1` counts its payload.
impl<M: Side> Framing for M {
    const HEAD: usize = wire::HEADER_LEN;

    fn header(&mut self, length: usize) -> Result<[u8; wire::HEADER_LEN], LinkError> {
        Ok(self.course_mut().data(length)?)
    }
}

/// What the workload said before the acceptor answered. If the use is handed back, it can be said
/// again elsewhere; nothing else ever is.
#[derive(Debug, Default)]
pub struct Said {
    pub bytes: Vec<u8>,
    /// The workload has ended its half.
    pub ended: bool,
}

/// How long an acceptor's answer may wait for the first words of its workload: most servers answer
/// a request sooner, and a dialer that has more to say than a request waits no longer than this.
pub const LINGER: Duration = Duration::from_millis(2);

/// Most of what a workload says that is kept until the acceptor answers; then it is waited for. One
/// round trip inside a datacentre at 10 Gbit/s, and what a request without its body takes.
pub const MOST_SAID: usize = 64 * 1024;

/// What the next plaintext means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This many bytes in front are the workload's.
    Deliver(usize),
    PeerFin,
    PeerReset,
    Accepted,
    Refused(Refuse),
    /// The acceptor retires and never took this use.
    HandedBack,
    Nothing,
}

/// Why a link cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("the peer split a frame over two TLS records; check that its release speaks myelin/1")]
    SplitFrame,
    #[error(transparent)]
    Misuse(#[from] Misuse),
    #[error("the peer closed in the middle of a use; what it sent may have been cut short")]
    EarlyClose,
    #[error("the peer did not answer within {0:?}; it stalls or packets are lost")]
    Silent(Duration),
}

impl LinkError {
    /// The connection itself is gone, whoever ended it.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Record(RecordError::Io(_) | RecordError::Truncated) | Self::EarlyClose)
    }
}
