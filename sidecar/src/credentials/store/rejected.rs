//! Why something new was not taken over: the old stays in use. Called by the store; counted and
//! logged by whoever wanted to publish.
//!
//! Never: a key, a token, certificate bytes.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::svid::SvidError;
use myelin_identity::verify::Refusal;

use crate::proofs::NotLogged;
use crate::tls::TlsError;

/// The CA is to blame unless the variant says otherwise. Times are Unix seconds.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    #[error("the CA issued something that is no SVID: {0}")]
    Malformed(#[from] SvidError),
    #[error("the CA issued an SVID for another key than the one in our CSR; it is not used")]
    WrongKey,
    #[error("the CA issued an SVID for {seen}, expected {expected}; see the join token's record")]
    WrongId { seen: SpiffeId, expected: SpiffeId },
    #[error("the CA issued {seen}, which is reserved for Myelin itself; it is not used")]
    ReservedId { seen: SpiffeId },
    #[error(
        "the SVID just issued is not valid by this machine's clock: now {now}, notBefore \
         {not_before}, notAfter {not_after}; set the clock of this machine or of the CA"
    )]
    Clock { now: u64, not_before: u64, not_after: u64 },
    #[error("the SVID just issued does not verify under the CA's own bundle: {0}")]
    Untrusted(Refusal),
    #[error("peers would refuse the SVID just issued: {0}")]
    NotLogged(#[from] NotLogged),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("a bundle of trust domain {seen} was sent, expected {expected}; it is not used")]
    OtherTrustDomain { seen: TrustDomain, expected: TrustDomain },
    #[error("bundle generation {generation} is not believed: {why}; the one that we hold stays")]
    Unproven { generation: u64, why: String },
    #[error("bundle generation {seen} is older than the {held} we hold; it is not used")]
    OlderBundle { seen: u64, held: u64 },
    #[error(
        "bundle generation {generation} has no root for our own SVID; renewing first, then both \
         change at once"
    )]
    RootRetired { generation: u64 },
    #[error(
        "bundle generation {generation} has a new root that names no log, although a root that we \
         hold names one, or says another log of a root than before; it is not used. If no operator \
         changed that, somebody holds one of the CA's keys; a new root needs a log"
    )]
    DutyTakenBack { generation: u64 },
    #[error("deny list epoch {seen} is older than the {held} we hold; it is not used")]
    OlderDenyList { seen: u64, held: u64 },
    #[error("deny list epoch {epoch} says something else than before; it is not used")]
    ContradictoryDenyList { epoch: u64 },
    #[error("epoch {seen} of the foreign bundles is older than the {held} we hold; it is not used")]
    OlderForeign { seen: u64, held: u64 },
    #[error("epoch {epoch} of the foreign bundles says something else than before; it is not used")]
    ContradictoryForeign { epoch: u64 },
    #[error("there is no SVID yet that it could go with; this is a defect of ours")]
    NoSvid,
}

impl Rejected {
    /// The outcome word of a renewal that ended so; of a bundle, only `duty_taken_back`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Clock { .. } => "clock_wrong",
            Self::DutyTakenBack { .. } => "duty_taken_back",
            _ => "svid_rejected",
        }
    }

    /// Whatever speaks of time is the clocks' trouble, and says so.
    pub(super) fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Expired { now, not_before, not_after }
            | Refusal::NotYetValid { now, not_before, not_after } => {
                Self::Clock { now, not_before, not_after }
            }
            other => Self::Untrusted(other),
        }
    }
}
