//! One intention to get an SVID: a fresh key, its CSR and a request key, kept together until the CA
//! has answered, so that a lost reply is asked for again and not renewed twice. Called by `keeper`.
//!
//! Never: writes or logs a key or a token, reuses a key for another intention, asks for names.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::issuance::{Csr, IssuanceError, IssueRequest, IssueResponse, RequestKey};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::ca_client::{ConnectError, Link};
use super::evidence::{Evidence, EvidenceError, Request, Right};
use super::host_key::HostKey;
use super::store::Rejected;

/// The trailer in which the CA names its reason: one word of a closed set.
pub(super) const REASON_TRAILER: &str = "myelin-reason";
/// What is quoted of a status message: the CA's are one line each, shorter than this.
const MAX_QUOTED_CHARACTERS: usize = 240;

/// Why an attempt brought no SVID.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the CA did not answer within {after:?}; the same request is sent again")]
    TimedOut { after: Duration },
    #[error("the CA could not answer ({code:?}: {said}); the same request is sent again")]
    Unanswered { code: Code, said: String },
    #[error("the CA refused: {said}")]
    Refused { reason: Reason, said: String },
    #[error("the CA's answer makes no sense: {0}")]
    Malformed(IssuanceError),
    #[error("there is nothing to attest with: {0}")]
    Evidence(#[from] EvidenceError),
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("making a key and a CSR failed in the cryptographic library; this is a defect of ours")]
    Own,
}

/// The CA's reasons that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The join token is used, expired or unknown.
    Token,
    /// This host key never redeemed a token there.
    HostUnknown,
    /// This host key or lineage was denied after an alarm, or revoked.
    Denied,
    /// Our ID, or the SVID that we hold, is revoked: that ends, or is taken back, without us.
    Withdrawn,
    /// The lineage that we wanted to go on with is not ours (any more).
    LineageUnknown,
    Other,
}

impl IssueError {
    /// Every word that [`IssueError::word`] may say: the closed set for metric labels.
    pub const WORDS: [&'static str; 10] = [
        "ca_unreachable",
        "ca_untrusted",
        "ca_refused",
        "host_denied",
        "identity_withdrawn",
        "answer_malformed",
        "svid_rejected",
        "clock_wrong",
        "duty_taken_back",
        "evidence_unreadable",
    ];

    /// The outcome word of this attempt.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.word(),
            Self::TimedOut { .. } | Self::Unanswered { .. } => "ca_unreachable",
            Self::Refused { reason: Reason::Denied, .. } => "host_denied",
            Self::Refused { reason: Reason::Withdrawn, .. } => "identity_withdrawn",
            Self::Refused { .. } => "ca_refused",
            Self::Malformed(_) => "answer_malformed",
            Self::Evidence(_) => "evidence_unreadable",
            Self::Rejected(rejected) => rejected.word(),
            Self::Own => "svid_rejected",
        }
    }

    /// Another root on either side looks like this: we do not recognise the CA, or it hangs up on the
    /// SVID that we show.
    pub(super) fn may_be_rotation(&self) -> bool {
        match self {
            Self::Connect(ConnectError::Dial(_) | ConnectError::TimedOut { .. }) => false,
            Self::Connect(_) | Self::Unanswered { .. } => true,
            Self::Refused { said, .. } => said.contains("untrusted_root"),
            _ => false,
        }
    }

    /// The CA may have issued without our knowing: only the very same request may follow.
    pub(super) fn leaves_open(&self) -> bool {
        // Without evidence nothing was sent, but something may have been before.
        matches!(
            self,
            Self::Connect(_) | Self::TimedOut { .. } | Self::Unanswered { .. } | Self::Evidence(_)
        )
    }
}

/// A request and the key that it is for.
pub(super) struct Attempt {
    pub(super) csr: Csr,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
    pub(super) right: Right,
    request_key: RequestKey,
}

impl Attempt {
    /// With a key that nothing else has ever used.
    pub(super) fn new(right: Right) -> Result<Self, IssueError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| IssueError::Own)?;
        let mut params = CertificateParams::default();
        // The CA takes the public key and nothing else: there is nothing to ask for.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&pair).map_err(|_| IssueError::Own)?;
        let csr = Csr::parse(request.der().to_vec()).map_err(|_| IssueError::Own)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let request_key = RequestKey::random().map_err(|_| IssueError::Own)?;
        Ok(Self { csr, key: Arc::new(key), right, request_key })
    }

    /// Sends the request on a connection that has proved the CA, with the host's proof for it.
    pub(super) async fn send(
        &self,
        link: &mut Link,
        host: &HostKey,
        evidence: &Evidence,
        lifetime: Option<Duration>,
        within: Duration,
    ) -> Result<IssueResponse, IssueError> {
        let (csr_der, request_key) = (self.csr.der(), &self.request_key);
        let exporter = &link.exporter;
        let shown = Request { host_spki: host.spki(), exporter, csr_der, request_key };
        let request = IssueRequest {
            attestation: self.right.attest(evidence, &shown)?,
            csr: self.csr.clone(),
            request_key: self.request_key,
            host_signature: host.prove(&link.exporter, self.csr.der(), &self.request_key),
            lifetime_seconds: lifetime.map(|lifetime| lifetime.as_secs()),
        };
        let answer = timeout(within, link.stub.issue(tonic::Request::new(request.into())))
            .await
            .map_err(|_| IssueError::TimedOut { after: within })?
            .map_err(|status| of_status(&status))?;
        answer.into_inner().try_into().map_err(IssueError::Malformed)
    }
}

/// What a status means for us. A word that we do not know is no reason to give up.
fn of_status(status: &Status) -> IssueError {
    let said = quoted(status.message());
    let reason = status.metadata().get(REASON_TRAILER).and_then(|word| word.to_str().ok());
    match (status.code(), reason) {
        (_, Some("token_unknown" | "token_expired" | "token_used")) => {
            IssueError::Refused { reason: Reason::Token, said }
        }
        (_, Some("host_unknown")) => IssueError::Refused { reason: Reason::HostUnknown, said },
        (_, Some("host_denied" | "lineage_denied" | "alarm")) => {
            IssueError::Refused { reason: Reason::Denied, said }
        }
        (_, Some("denied" | "id_denied")) => {
            IssueError::Refused { reason: Reason::Withdrawn, said }
        }
        (_, Some("lineage_unknown" | "svid_of_another_lineage" | "id_changed")) => {
            IssueError::Refused { reason: Reason::LineageUnknown, said }
        }
        (
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unimplemented,
            _,
        ) => IssueError::Refused { reason: Reason::Other, said },
        (code, _) => IssueError::Unanswered { code, said },
    }
}

/// One line, bounded, printable: it goes into our log.
pub(super) fn quoted(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, reason: Option<&str>) -> Status {
        let mut status = Status::new(code, "said\nso");
        if let Some(reason) = reason {
            status.metadata_mut().insert(REASON_TRAILER, reason.parse().unwrap());
        }
        status
    }

    fn right() -> Right {
        Right::Host(None)
    }

    #[test]
    fn every_attempt_has_a_key_and_a_request_key_of_its_own() {
        let (one, two) = (Attempt::new(right()).unwrap(), Attempt::new(right()).unwrap());
        assert_ne!(one.csr.key(), two.csr.key());
        assert_ne!(one.request_key, two.request_key);
    }

    #[test]
    fn a_csr_asks_for_no_name() {
        let attempt = Attempt::new(right()).unwrap();
        // An empty subject, an empty attribute set, one P-256 key: nothing else fits in.
        assert!(attempt.csr.der().len() < 240, "{} bytes", attempt.csr.der().len());
    }

    #[test]
    fn statuses_are_told_apart_by_what_we_do_about_them() {
        let refused = |error: &IssueError| match error {
            IssueError::Refused { reason, .. } => Some(*reason),
            _ => None,
        };
        for (code, word, expected) in [
            (Code::PermissionDenied, Some("token_used"), Some(Reason::Token)),
            (Code::PermissionDenied, Some("token_expired"), Some(Reason::Token)),
            (Code::PermissionDenied, Some("token_unknown"), Some(Reason::Token)),
            (Code::PermissionDenied, Some("host_unknown"), Some(Reason::HostUnknown)),
            (Code::PermissionDenied, Some("alarm"), Some(Reason::Denied)),
            (Code::PermissionDenied, Some("host_denied"), Some(Reason::Denied)),
            (Code::PermissionDenied, Some("denied"), Some(Reason::Withdrawn)),
            (Code::PermissionDenied, Some("id_denied"), Some(Reason::Withdrawn)),
            (Code::PermissionDenied, Some("lineage_unknown"), Some(Reason::LineageUnknown)),
            (Code::PermissionDenied, Some("id_changed"), Some(Reason::LineageUnknown)),
            (Code::PermissionDenied, Some("of the future"), Some(Reason::Other)),
            (Code::InvalidArgument, None, Some(Reason::Other)),
            (Code::Unavailable, Some("address_taken"), None),
            (Code::Unavailable, None, None),
            (Code::Internal, None, None),
            (Code::Unknown, None, None),
            (Code::DeadlineExceeded, None, None),
        ] {
            let error = of_status(&status(code, word));
            assert_eq!(refused(&error), expected, "{code:?} {word:?}");
            assert_eq!(error.leaves_open(), expected.is_none(), "{code:?} {word:?}");
            assert!(IssueError::WORDS.contains(&error.word()));
        }
        // What an operator did has words of its own.
        for (word, expected) in [
            ("id_denied", "identity_withdrawn"),
            ("denied", "identity_withdrawn"),
            ("host_denied", "host_denied"),
            ("alarm", "host_denied"),
            ("host_unknown", "ca_refused"),
        ] {
            let error = of_status(&status(Code::PermissionDenied, Some(word)));
            assert_eq!(error.word(), expected, "{word}");
        }
    }

    #[test]
    fn what_the_ca_says_is_quoted_in_one_bounded_line() {
        let error = of_status(&status(Code::PermissionDenied, None));
        assert_eq!(error.to_string(), "the CA refused: saidso");
        assert_eq!(quoted(&"x".repeat(1_000)).len(), MAX_QUOTED_CHARACTERS);
    }
}
