//! A log that has shown two histories, and where the evidence lies. Made by whoever found it, kept
//! by `judge`.
//!
//! Never: decides what a fork is.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use myelin_identity::log::LogKey;

/// See the module's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    pub log: Suspect,
    pub evidence: String,
}

/// Which log it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspect {
    Log(LogKey),
    /// The evidence cannot be read any more; its file's name gives the id of the log's key. Every
    /// log of that id is suspect until somebody has looked.
    KeyId([u8; 4]),
}

impl Suspect {
    pub(super) fn is(&self, log: &LogKey) -> bool {
        match self {
            Self::Log(suspect) => suspect == log,
            Self::KeyId(id) => log.as_note_key().id() == *id,
        }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(log) => write!(f, "log {}", log.name()),
            Self::KeyId(id) => write!(f, "the log with key id {:08x}", u32::from_be_bytes(*id)),
        }
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has shown two histories: see {}", self.log, self.evidence)
    }
}
