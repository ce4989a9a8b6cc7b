//! Whether a certificate is in the log that its issuer names, and the issuer in the root's: the
//! question that peers ask once for each SVID. Called after the chain itself was verified.
//! Never: looks at dates, names or signatures of certificates, or accepts for want of a log.

// SPDX-License-Identifier: Apache-2.0

use super::checkpoint::{Checkpoint, CheckpointError, cosigned_by};
use super::entry::entry_of;
use super::named::{NamedLogError, named_log};
use super::note::{LogKey, Note, NoteError, WitnessKey};
use super::proof::{Inclusion, LogProof, ProofError};
use super::tree::{Hash, leaf_hash, verify_inclusion};

/// A verified path, DER.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    pub leaf: &'a [u8],
    pub intermediate: &'a [u8],
    /// The root that the path ended in.
    pub root: &'a [u8],
}

/// Whose cosignatures count, and how many of them each checkpoint must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witnesses {
    pub keys: Vec<WitnessKey>,
    pub quorum: usize,
}

/// A checkpoint that a proof rested on, to compare with others of the same log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub log: LogKey,
    pub size: u64,
    pub root: Hash,
    /// The signed note: evidence, if it turns out to be a fork.
    pub note: Vec<u8>,
}

/// What was seen to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log of SVIDs, and the leaf's place in it.
    pub leaf: Seen,
    pub leaf_index: u64,
    /// The root's log, and the intermediate's place in it.
    pub issuer: Seen,
    pub issuer_index: u64,
}

/// Why a certificate does not count as logged. The blame is the presenter's, or its CA's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogRefusal {
    #[error("no log proof was presented; is the peer's CA one that keeps a log?")]
    NotLogged,
    #[error("the log proof cannot be read: {0}")]
    Unreadable(#[from] ProofError),
    #[error("the {whose} certificate names no log, so nothing that it issued can be proven logged")]
    UnknownLog { whose: &'static str },
    #[error("the {whose} certificate's log cannot be used: {why}")]
    UnusableLog { whose: &'static str, why: NamedLogError },
    #[error("the checkpoint of the {whose}'s log does not hold: {why}")]
    Checkpoint { whose: &'static str, why: CheckpointError },
    #[error("the {what} is not in log {origin} at place {index} of {size}")]
    Absent { what: &'static str, origin: String, index: u64, size: u64 },
    #[error(
        "the checkpoint of log {origin} carries {found} cosignatures of {required} that are required"
    )]
    WitnessesMissing { origin: String, found: usize, required: usize },
}

impl LogRefusal {
    /// One word of a closed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotLogged => "not_logged",
            Self::UnknownLog { .. } | Self::UnusableLog { .. } => "log_unknown",
            Self::Unreadable(_) | Self::Checkpoint { .. } | Self::Absent { .. } => {
                "log_proof_invalid"
            }
            Self::WitnessesMissing { .. } => "log_witnesses_missing",
        }
    }
}

/// Judges the bytes of a [`LogProof`] for a path that was verified. `root_log` is the log that the
/// signed bundle states for the root; it counts only if the root's certificate names none.
pub fn verify(
    proof: &[u8],
    chain: &Chain<'_>,
    root_log: Option<&LogKey>,
    witnesses: &Witnesses,
) -> Result<Verified, LogRefusal> {
    if proof.is_empty() {
        return Err(LogRefusal::NotLogged);
    }
    let proof = LogProof::decode(proof)?;
    let log_of_leaves = named("intermediate", chain.intermediate, None)?;
    let log_of_issuers = named("root", chain.root, root_log)?;
    let issuer = Question { what: "intermediate", whose: "root", log: log_of_issuers };
    let issuer =
        issuer.judge(&proof.issuer, &entry_of(chain.intermediate, chain.root), witnesses)?;
    let leaf = Question { what: "leaf", whose: "intermediate", log: log_of_leaves };
    let leaf = leaf.judge(&proof.leaf, &entry_of(chain.leaf, chain.intermediate), witnesses)?;
    let (leaf_index, issuer_index) = (proof.leaf.index, proof.issuer.index);
    Ok(Verified { leaf, leaf_index, issuer, issuer_index })
}

fn named(
    whose: &'static str,
    certificate: &[u8],
    stated: Option<&LogKey>,
) -> Result<LogKey, LogRefusal> {
    match named_log(certificate) {
        Ok(Some(log)) => Ok(log),
        Ok(None) => stated.cloned().ok_or(LogRefusal::UnknownLog { whose }),
        Err(why) => Err(LogRefusal::UnusableLog { whose, why }),
    }
}

/// What is to be in whose log.
struct Question {
    what: &'static str,
    whose: &'static str,
    log: LogKey,
}

impl Question {
    fn judge(
        self,
        inclusion: &Inclusion,
        entry: &[u8],
        witnesses: &Witnesses,
    ) -> Result<Seen, LogRefusal> {
        let Self { what, whose, log } = self;
        let not_held = |why| LogRefusal::Checkpoint { whose, why };
        let checkpoint = Checkpoint::open(&inclusion.checkpoint, &log).map_err(not_held)?;
        let (size, root) = (checkpoint.size, checkpoint.root);
        let index = inclusion.index;
        if !verify_inclusion(&leaf_hash(entry), index, size, &inclusion.path, &root) {
            let origin = checkpoint.origin;
            return Err(LogRefusal::Absent { what, origin, index, size });
        }
        if witnesses.quorum > 0 {
            let count = |note| cosigned_by(&note, &witnesses.keys).map(|found| found.len());
            let found = Note::parse(&inclusion.checkpoint)
                .and_then(count)
                .map_err(|why: NoteError| not_held(why.into()))?;
            if found < witnesses.quorum {
                let (origin, required) = (checkpoint.origin, witnesses.quorum);
                return Err(LogRefusal::WitnessesMissing { origin, found, required });
            }
        }
        Ok(Seen { log, size, root, note: inclusion.checkpoint.clone() })
    }
}
