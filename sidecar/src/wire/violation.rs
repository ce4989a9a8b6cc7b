//! What a peer did wrong (`Violation`) and what our own driver did wrong (`Misuse`). Both name
//! what was seen and what was expected. Called by everything in this room and by the relay.
//!
//! Never: payload bytes in a message, a violation that a connection could survive.

// SPDX-License-Identifier: Apache-2.0

use super::names::{Kind, Phase, UseNumber};

/// The peer broke the protocol. The only answer is a TCP RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error(
        "the peer sent frame type {0}, known are 1 to 9: the connection is closed; \
         check that both sidecars run releases that speak myelin/1"
    )]
    UnknownType(u8),
    #[error(
        "the peer sent a {} frame of {got} payload bytes, {least} to {most} are legal: \
         the connection is closed; check the peer's release",
        kind.word()
    )]
    WrongLength { kind: Kind, got: usize, least: usize, most: usize },
    #[error(
        "the peer's hello announces a proof of {announced} bytes and carries {got}: \
         the connection is closed; check the peer's release"
    )]
    ProofLength { announced: usize, got: usize },
    #[error(
        "the peer's hello states version 0, the first is 1: the connection is closed; \
         check the peer's release"
    )]
    VersionZero,
    #[error(
        "the peer sent {} while the connection was {}, where it is out of order: \
         the connection is closed; if this recurs, check the peer's release",
        kind.word(),
        phase.word()
    )]
    OutOfOrder { kind: Kind, phase: Phase },
    #[error(
        "the peer sent {} for use {got}, expected use {expected}: \
         the connection is closed; if this recurs, check the peer's release",
        kind.word()
    )]
    WrongUse { kind: Kind, got: UseNumber, expected: UseNumber },
    #[error(
        "the peer sent more than {limit} bytes for a use that was not taken: \
         the connection is closed; nothing of it was delivered"
    )]
    TooMuchDiscarded { limit: u64 },
    #[error(
        "bytes arrived on a connection that is {}: they are dropped and the connection is closed",
        phase.word()
    )]
    AfterEnd { phase: Phase },
}

impl Violation {
    /// The stable reason word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::UnknownType(_) => "unknown_frame_type",
            Self::WrongLength { .. } => "wrong_frame_length",
            Self::ProofLength { .. } => "wrong_proof_length",
            Self::VersionZero => "wrong_version",
            Self::OutOfOrder { .. } => "frame_out_of_order",
            Self::WrongUse { .. } => "wrong_use_number",
            Self::TooMuchDiscarded { .. } => "too_much_discarded",
            Self::AfterEnd { .. } => "bytes_after_end",
        }
    }
}

/// Our own driver asked for what the protocol does not allow now; nothing was sent or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot send {attempted} while the connection is {}: this is a fault of this sidecar, \
     please report it",
    phase.word()
)]
pub struct Misuse {
    /// What the driver tried to send.
    pub attempted: &'static str,
    /// Where the connection stood.
    pub phase: Phase,
}
