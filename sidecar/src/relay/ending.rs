//! How long a use may last, what counts it, and how it ends. Called by the duplex; `report` turns an
//! ending into its outcome word.
//!
//! Never: a decision; two endings for one reason.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::carrier::{LinkError, Said};
use super::outbox::FillError;
use super::records::RecordError;
use crate::wire::Refuse;

/// Counts bytes as they pass.
pub trait Meter {
    fn to_peer(&self, bytes: usize);
    fn to_workload(&self, bytes: usize);
}

/// The time limits of one use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A use without a byte in either direction for this long (and at most twice) is ended.
    pub idle: Duration,
    /// The acceptor must have answered by then; `None` when it is us.
    pub answer: Option<Duration>,
    /// How long the acceptor's answer may wait for the workload's first words, to leave in one
    /// segment with them. Nobody needs it sooner: the dialer sends at once, whatever the answer.
    pub linger: Option<Duration>,
}

/// How a use ended. All but `Completed` leave the mesh connection unusable.
#[derive(Debug)]
pub enum Ending<I> {
    /// Both directions ended whole. On a carrier that settles, our fin may still be pending: it
    /// leaves with what settles. Closing the workload's stream and settling must follow at once.
    Completed,
    WorkloadReset,
    PeerReset,
    Refused(Refuse),
    /// The acceptor never took the use: what the workload has said may be said elsewhere.
    HandedBack(Said),
    NoAnswer,
    Idle,
    /// The interrupt came first; this is what it said.
    Interrupted(I),
    Broken(LinkError),
}

/// Why the poll stopped; `Ending` without what only the end of a use can know.
pub(super) enum Stop {
    Completed,
    WorkloadReset,
    PeerReset,
    Refused(Refuse),
    HandedBack,
    NoAnswer,
    Idle,
    Broken(LinkError),
}

impl Stop {
    /// `said` is asked for when the use was handed back.
    pub(super) fn into_ending<I>(self, said: impl FnOnce() -> Said) -> Ending<I> {
        match self {
            Self::Completed => Ending::Completed,
            Self::WorkloadReset => Ending::WorkloadReset,
            Self::PeerReset => Ending::PeerReset,
            Self::Refused(why) => Ending::Refused(why),
            Self::HandedBack => Ending::HandedBack(said()),
            Self::NoAnswer => Ending::NoAnswer,
            Self::Idle => Ending::Idle,
            Self::Broken(error) => Ending::Broken(error),
        }
    }
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Self {
        Self::Broken(error)
    }
}

impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<FillError> for Stop {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Stream => Self::WorkloadReset,
            FillError::Link(error) => Self::Broken(error),
        }
    }
}
