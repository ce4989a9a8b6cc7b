//! The names that everything in this room uses: a use's number, the kinds of frame, and where a
//! connection stands. Called by the frames, the machines and their messages.
//!
//! Never: bytes, limits, or which frame is legal when.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

/// The number of a use: 1 for the first of a connection, then one more each. Zero stands for
/// "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UseNumber(u64);

impl UseNumber {
    /// Before the first use.
    pub const NONE: Self = Self(0);

    /// A number as it stands on the wire.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The only legal successor. A `Budget` ends a connection long before this could saturate.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for UseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The type byte of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    Open = 2,
    Accepted = 3,
    Refused = 4,
    Retiring = 5,
    Data = 6,
    Fin = 7,
    Reset = 8,
    Idle = 9,
}

impl Kind {
    /// Every kind, in the order of its type byte.
    pub const ALL: [Self; 9] = [
        Self::Hello,
        Self::Open,
        Self::Accepted,
        Self::Refused,
        Self::Retiring,
        Self::Data,
        Self::Fin,
        Self::Reset,
        Self::Idle,
    ];

    /// The frame's name in documents and messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Open => "open",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Retiring => "retiring",
            Self::Data => "data",
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::Idle => "idle",
        }
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A hello is missing.
    Greeting,
    /// No use runs.
    Idle,
    /// A use was opened and not answered.
    Opened,
    /// A use was accepted.
    Running,
    /// Both fins have passed, not yet both idles.
    Recycling,
    /// The acceptor did not take the use and drops what the dialer had already sent.
    Discarding,
    /// No further use: close with close_notify.
    Retired,
    /// A reset was sent or read: close with RST.
    Reset,
    /// The peer broke the protocol: close with RST.
    Broken,
}

impl Phase {
    /// The phase's name in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Idle => "idle",
            Self::Opened => "opened",
            Self::Running => "running",
            Self::Recycling => "recycling",
            Self::Discarding => "discarding",
            Self::Retired => "retired",
            Self::Reset => "reset",
            Self::Broken => "broken",
        }
    }
}
