//! The outcome words: how a connection can end, each with one stable word and one party to blame.
//! The only place where the errors of the lower rooms meet. docs/OUTCOMES.md explains each word to
//! operators; a test holds the two lists against each other.
//!
//! Never: a word that depends on a peer's bytes; two words for one ending.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::verify::Refusal;

use crate::net::DialError;
use crate::proofs::NotLogged;
use crate::relay::LinkError;
use crate::tls::HandshakeError;
use crate::wire::Refuse;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Nobody,
    Peer,
    Workload,
    Configuration,
    Ca,
    Us,
}

impl Blame {
    pub fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Peer => "peer",
            Self::Workload => "workload",
            Self::Configuration => "configuration",
            Self::Ca => "ca",
            Self::Us => "sidecar",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Unused,
    Drained,
    Abandoned,
    IdleTimeout,
    WorkloadReset,
    PeerReset,
    PeerVanished,
    PeerViolation,
    PeerSilent,
    Overloaded,
    Loop,
    BadDestination,
    DetectTimeout,
    Unbound,
    DirectoryUnavailable,
    UpstreamUnreachable,
    UpstreamTimeout,
    PolicyDenied,
    PolicyPending,
    Withdrawn,
    NoIdentity(&'static str),
    Handshake(&'static str),
    PeerRefused(&'static str),
    RefusedByPeer(Refuse),
    HandedBack,
}

impl Outcome {
    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Unused => "unused",
            Self::Drained => "drained",
            Self::Abandoned => "abandoned",
            Self::IdleTimeout => "idle_timeout",
            Self::WorkloadReset => "workload_reset",
            Self::PeerReset => "peer_reset",
            Self::PeerVanished => "peer_vanished",
            Self::PeerViolation => "peer_violation",
            Self::PeerSilent => "peer_silent",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::BadDestination => "bad_destination",
            Self::DetectTimeout => "detect_timeout",
            Self::Unbound => "unbound_address",
            Self::DirectoryUnavailable => "directory_unavailable",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::PolicyDenied => "policy_denied",
            Self::PolicyPending => "policy_pending",
            Self::Withdrawn => "withdrawn",
            Self::NoIdentity(word) | Self::Handshake(word) | Self::PeerRefused(word) => word,
            Self::RefusedByPeer(why) => refused_word(why),
            Self::HandedBack => "handed_back",
        }
    }

    pub fn blame(self) -> Blame {
        match self {
            Self::Completed | Self::Unused | Self::Drained | Self::IdleTimeout => Blame::Nobody,
            Self::WorkloadReset | Self::UpstreamUnreachable | Self::UpstreamTimeout => {
                Blame::Workload
            }
            Self::Loop
            | Self::BadDestination
            | Self::Unbound
            | Self::PolicyDenied
            | Self::PolicyPending => Blame::Configuration,
            Self::DirectoryUnavailable | Self::NoIdentity(_) => Blame::Ca,
            Self::Abandoned | Self::Overloaded => Blame::Us,
            _ => Blame::Peer,
        }
    }

    /// Every word, for the documented table.
    pub fn words() -> Vec<&'static str> {
        let own = [
            Self::Completed,
            Self::Unused,
            Self::Drained,
            Self::Abandoned,
            Self::IdleTimeout,
            Self::WorkloadReset,
            Self::PeerReset,
            Self::PeerVanished,
            Self::PeerViolation,
            Self::PeerSilent,
            Self::Overloaded,
            Self::Loop,
            Self::BadDestination,
            Self::DetectTimeout,
            Self::Unbound,
            Self::DirectoryUnavailable,
            Self::UpstreamUnreachable,
            Self::UpstreamTimeout,
            Self::PolicyDenied,
            Self::PolicyPending,
            Self::Withdrawn,
            Self::HandedBack,
        ];
        let mut words: Vec<_> = own.into_iter().map(Self::word).collect();
        words.extend(["identity_pending", "identity_expired", "identity_not_yet_valid"]);
        words.extend(HandshakeError::WORDS);
        words.extend(Refusal::WORDS);
        words.extend(NotLogged::WORDS);
        words.extend(Refuse::ALL.map(refused_word));
        words
    }
}

impl From<&NotLogged> for Outcome {
    fn from(why: &NotLogged) -> Self {
        Self::PeerRefused(why.word())
    }
}

impl From<&HandshakeError> for Outcome {
    fn from(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::Peer(refusal) => Self::PeerRefused(refusal.word()),
            other => Self::Handshake(other.word()),
        }
    }
}

impl From<&LinkError> for Outcome {
    fn from(error: &LinkError) -> Self {
        match error {
            LinkError::Record(_) | LinkError::EarlyClose => Self::PeerVanished,
            LinkError::Violation(_) | LinkError::SplitFrame => Self::PeerViolation,
            LinkError::Silent(_) => Self::PeerSilent,
            LinkError::Misuse(_) => Self::Abandoned,
        }
    }
}

impl From<&DialError> for Outcome {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::TimedOut { .. } => Self::UpstreamTimeout,
            DialError::Unreachable { .. } => Self::UpstreamUnreachable,
            DialError::NoDescriptors { .. } => Self::Overloaded,
        }
    }
}

/// The peer's reason, told apart from the same reason of our own.
fn refused_word(why: Refuse) -> &'static str {
    match why {
        Refuse::Unspecified => "peer_said_unspecified",
        Refuse::PolicyDenied => "peer_said_policy_denied",
        Refuse::IdentityExpired => "peer_said_identity_expired",
        Refuse::IdentityDenied => "peer_said_identity_denied",
        Refuse::UntrustedRoot => "peer_said_untrusted_root",
        Refuse::AddressUnbound => "peer_said_address_unbound",
        Refuse::NotLogged => "peer_said_not_logged",
        Refuse::IdentityUnavailable => "peer_said_identity_unavailable",
        Refuse::BadDestination => "peer_said_bad_destination",
        Refuse::UpstreamUnreachable => "peer_said_upstream_unreachable",
        Refuse::Overloaded => "peer_said_overloaded",
        Refuse::Draining => "peer_said_draining",
    }
}
