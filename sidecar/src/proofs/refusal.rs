//! Why a peer counts as not logged: one variant, one line and one word each. Called by `judge`; the
//! words become outcome words in `report`.
//!
//! Never: a byte of the proof in a message.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::id::TrustDomain;
use myelin_identity::log::LogRefusal;

/// The peer is to blame, or the CA that issued to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLogged {
    #[error(transparent)]
    Refused(#[from] LogRefusal),
    #[error(
        "the peer presented {seen} certificates; below a root that names a log, exactly an SVID and \
         its issuer are read"
    )]
    Chain { seen: usize },
    #[error(
        "log {origin} has shown two histories, so nothing in it counts; the evidence lies in \
         {evidence}"
    )]
    Forked { origin: String, evidence: String },
    #[error(
        "the CA's directory says that the peer speaks plain mTLS, which shows no log proof; only \
         this sidecar's own configuration may make that exception: name it as an outbound.peer"
    )]
    Undeclared,
    #[error(
        "no log is named by the peer's root, and {trust_domain} was not accepted without one; ask \
         its operators for a log, or federate with it --unlogged at the CA and name it in this \
         sidecar's federates_unlogged"
    )]
    ForeignUnlogged { trust_domain: TrustDomain },
}

impl NotLogged {
    /// Every word that [`NotLogged::word`] may say: the closed set for metric labels.
    pub const WORDS: [&'static str; 7] = [
        "not_logged",
        "log_unknown",
        "log_proof_invalid",
        "log_witnesses_missing",
        "log_forked",
        "plain_mtls_undeclared",
        "foreign_unlogged",
    ];

    /// The stable reason word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.word(),
            Self::Chain { .. } => "log_proof_invalid",
            Self::Forked { .. } => "log_forked",
            Self::Undeclared => "plain_mtls_undeclared",
            Self::ForeignUnlogged { .. } => "foreign_unlogged",
        }
    }
}
