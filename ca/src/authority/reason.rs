//! Why an issue was refused: one closed set of words, the same in the audit line, the metric and
//! the reply.
//!
//! Never: a word that depends on what the caller sent.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::DenyError;
use myelin_identity::verify::Refusal;

use super::AuthorityError;
use crate::attest::AttestError;
use crate::check::Mismatch;
use crate::journal::JournalError;
use crate::log::LogError;
use crate::signer::SignerError;
use crate::template::LifetimeRefusal;

/// A refusal on the merits: what the journal says stands against the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("no such join token; make one with: myelin-ca token create")]
    TokenUnknown,
    #[error("the join token has expired; make another with: myelin-ca token create")]
    TokenExpired,
    #[error(
        "the join token was used before; make another, and find out who used it if it was not this machine"
    )]
    TokenUsed,
    #[error("this host key never redeemed a join token here; join with a token first")]
    HostUnknown,
    #[error(
        "this SPIFFE ID is revoked; see `myelin-ca revoke list` for why and until when, or take it back with `revoke undo`"
    )]
    IdDenied,
    #[error(
        "this host key was denied after an alarm or a revocation; if its SVID was copied, find out how, then join with a new host key and token"
    )]
    HostDenied,
    #[error(
        "the pod of this host key is gone, as its cluster said when another got its address; nothing is issued to it any more"
    )]
    PodGone,
    #[error(
        "no registration entry gives an ID to what was attested; make one with: myelin-ca entry create"
    )]
    EntryMissing,
    #[error("a deny entry holds for what was attested; see `myelin-ca entry list`")]
    EntryDenied,
    #[error(
        "two registration entries hold for what was attested and none is more exact; give one of them another selector"
    )]
    EntryAmbiguous,
    #[error(
        "the entry takes the address from the caller or its certificate, and there is none, or it lies outside the entry's ranges; is there a NAT between sidecar and CA?"
    )]
    AddressUnknown,
    #[error(
        "this host attests with evidence from outside the mesh at every issue, and came without; check the sidecar's [ca] section"
    )]
    EvidenceMissing,
    #[error(
        "this pod's service-account token was used with another host key before: it was copied, or the pod lost its state directory; start a new pod"
    )]
    Replayed,
    #[error(
        "this machine's key holds a live SVID under another host key: the machine's key was copied, or the sidecar lost its state directory; wait for that SVID's end, or revoke it if nobody should have it"
    )]
    MachineBound,
    #[error(
        "the registration entries give this caller another ID than its SVID has; start the sidecar again to take it"
    )]
    IdChanged,
    #[error("no such lineage belongs to this host key; attest with the host key alone")]
    LineageUnknown,
    #[error("this lineage was denied after an alarm; join with a new host key and token")]
    LineageDenied,
    #[error(
        "the connection's SVID is not of the lineage and generation that are to be renewed; connect with the current SVID"
    )]
    SvidOfAnotherLineage,
    #[error(
        "one SVID was renewed twice: it was copied, and both lineages are denied now; treat the machine as compromised"
    )]
    Alarm,
    #[error(
        "this request key was used for another public key; use a new random request key for a new request"
    )]
    RequestKeyReused,
    #[error(
        "another host holds a live SVID for this address; wait for its end; a pod's address is free as soon as the API server says that the pod is gone (--kubernetes-review)"
    )]
    AddressTaken,
    #[error(
        "too many single-port claims on this address; give its workloads one SVID, or addresses of their own"
    )]
    AddressCrowded,
    #[error("this host asked for too many certificates; find out why it restarts, and wait")]
    TooOften,
    #[error(
        "this replica has no intermediate under the root that issues now; ask another, and see this one's log"
    )]
    IssuerLagging,
    #[error("too many other issues at this moment; try again")]
    Contended,
}

impl Reason {
    pub fn word(self) -> &'static str {
        match self {
            Self::TokenUnknown => "token_unknown",
            Self::TokenExpired => "token_expired",
            Self::TokenUsed => "token_used",
            Self::HostUnknown => "host_unknown",
            Self::IdDenied => "id_denied",
            Self::HostDenied => "host_denied",
            Self::PodGone => "pod_gone",
            Self::EntryMissing => "entry_missing",
            Self::EntryDenied => "entry_denied",
            Self::EntryAmbiguous => "entry_ambiguous",
            Self::AddressUnknown => "address_unknown",
            Self::EvidenceMissing => "evidence_missing",
            Self::Replayed => "jwt_replayed",
            Self::MachineBound => "machine_bound",
            Self::IdChanged => "id_changed",
            Self::LineageUnknown => "lineage_unknown",
            Self::LineageDenied => "lineage_denied",
            Self::SvidOfAnotherLineage => "svid_of_another_lineage",
            Self::Alarm => "alarm",
            Self::RequestKeyReused => "request_key_reused",
            Self::AddressTaken => "address_taken",
            Self::AddressCrowded => "address_crowded",
            Self::TooOften => "too_often",
            Self::IssuerLagging => "issuer_lagging",
            Self::Contended => "contended",
        }
    }
}

/// Why there is no certificate: the caller, the circumstances, or us.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Unproven(#[from] AttestError),
    #[error("{0}")]
    Refused(Reason),
    #[error("the connection's SVID no longer counts: {0}")]
    Untrusted(Refusal),
    #[error(transparent)]
    Lifetime(#[from] LifetimeRefusal),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error("the deny list is full: {0}; alarms of this size need an operator: rotate the root")]
    DenyListFull(#[from] DenyError),
    #[error("cannot draw random bytes from the operating system; nothing was issued")]
    NoRandomness,
}

/// Whom the caller should blame, and so what it should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong and stays wrong.
    Request,
    /// The caller is not who it says, or no longer may.
    Caller,
    /// Trying again later may help.
    Circumstances,
    Ourselves,
}

impl IssueError {
    /// What is denied could not be read anew.
    pub(super) fn unheard(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Journal(error) => error.into(),
            AuthorityError::Issue(error) => error,
            AuthorityError::Denied(error) => error.into(),
            AuthorityError::Rotation(_)
            | AuthorityError::Revocation(_)
            | AuthorityError::Federation(_)
            | AuthorityError::Disagreement { .. } => Self::Refused(Reason::Contended),
        }
    }

    /// One word of a closed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unproven(error) => error.word(),
            Self::Refused(reason) => reason.word(),
            Self::Untrusted(refusal) => refusal.word(),
            Self::Lifetime(LifetimeRefusal::TooShort { .. }) => "lifetime_too_short",
            Self::Lifetime(LifetimeRefusal::IssuerExpiring { .. }) => "issuer_expiring",
            Self::Journal(_) => "store_failed",
            Self::Log(error) => error.word(),
            Self::Signer(error) => error.word(),
            Self::NoRandomness => "signer_failed",
            Self::Mismatch(_) => "check_failed",
            Self::DenyListFull(_) => "deny_list_full",
        }
    }

    pub fn blame(&self) -> Blame {
        match self {
            Self::Unproven(error) if error.is_malformed() => Blame::Request,
            Self::Unproven(error) if error.may_pass() => Blame::Circumstances,
            Self::Unproven(_) => Blame::Caller,
            Self::Refused(
                Reason::AddressTaken
                | Reason::AddressCrowded
                | Reason::MachineBound
                | Reason::TooOften
                | Reason::IssuerLagging
                | Reason::Contended,
            ) => Blame::Circumstances,
            Self::Refused(_) | Self::Untrusted(_) => Blame::Caller,
            Self::Lifetime(LifetimeRefusal::TooShort { .. }) => Blame::Request,
            Self::Lifetime(LifetimeRefusal::IssuerExpiring { .. })
            | Self::Journal(_)
            | Self::Log(_)
            | Self::Signer(SignerError::Token(_)) => Blame::Circumstances,
            Self::Signer(_) | Self::Mismatch(_) | Self::DenyListFull(_) | Self::NoRandomness => {
                Blame::Ourselves
            }
        }
    }
}
