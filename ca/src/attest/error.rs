//! Why a caller proved nothing, each with its word. The caller is to blame, except where the word
//! says that we could not judge.
//!
//! Never: a word that depends on what the caller sent.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::IssuanceError;
use myelin_identity::svid::KeyError;

/// Why a caller proved nothing.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error(transparent)]
    Malformed(#[from] IssuanceError),
    #[error(
        "the host key's signature is not over this connection, this CSR and this request key: {0}; sign the exporter of the connection that the request is sent on"
    )]
    HostSignature(KeyError),
    #[error(
        "a renewal must come on a connection that presents the current SVID; connect with it, or attest without a lineage"
    )]
    SvidNotPresented,
    #[error(
        "this CA was not told whom to believe about {0}; see docs/operate/attestation.md for the flags of `myelin-ca serve`"
    )]
    NotConfigured(&'static str),
    #[error("{0}")]
    Evidence(#[from] Evidence),
}

/// What is wrong with evidence from outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Evidence {
    #[error("the service-account token cannot be read: {0}")]
    TokenMalformed(&'static str),
    #[error(
        "the service-account token is signed with {0}, which is not on the list of algorithms, or not its key's"
    )]
    TokenAlgorithm(String),
    #[error("the issuer has no key {kid:?}; was the token made by another cluster?")]
    TokenKey { kid: String },
    #[error("the service-account token's signature is not by the key that it names")]
    TokenSignature,
    #[error("the service-account token is of issuer {seen:?}, expected {expected:?}")]
    TokenIssuer { seen: String, expected: String },
    #[error(
        "the service-account token is for {seen:?}, expected the audience {expected:?}; set `audience` of the projected volume"
    )]
    TokenAudience { seen: Vec<String>, expected: String },
    #[error(
        "the service-account token expired: now {now}, exp {exp}; is its file read anew at each issue?"
    )]
    TokenExpired { now: u64, exp: u64 },
    #[error(
        "the service-account token is not valid yet: now {now}, nbf or iat {from}; compare the clocks"
    )]
    TokenNotYetValid { now: u64, from: u64 },
    #[error(
        "the service-account token is no pod-bound token that expires ({0}); project it into the pod with `serviceAccountToken`"
    )]
    TokenNotPodBound(&'static str),
    #[error("the service-account token contradicts itself: {0}")]
    TokenContradicts(&'static str),
    #[error("the issuer's keys cannot be had: {0}; the sidecar tries again")]
    TokenKeysUnavailable(String),
    #[error("the API server does not take the service-account token: {0}")]
    TokenRefused(String),
    #[error("the pod that the service-account token is bound to is gone: {0}")]
    PodGone(&'static str),
    #[error(
        "the pod is in its node's network, where no address is its own; the mesh takes no such pods"
    )]
    PodHostNetwork,
    #[error("the pod has no address yet; the sidecar tries again")]
    PodWithoutAddress,
    #[error(
        "the API server cannot be asked about the token and its pod: {0}; the sidecar tries again"
    )]
    ReviewUnavailable(String),
    #[error("the machine's certificate cannot be read: {0}")]
    MachineMalformed(String),
    #[error("the machine's certificate does not chain to a CA of --machine-ca: {0}")]
    MachineUntrusted(String),
    #[error(
        "the machine's certificate is not valid now: now {now}, notBefore {not_before}, notAfter {not_after}"
    )]
    MachineExpired { now: u64, not_before: u64, not_after: u64 },
    #[error(
        "the machine's certificate is not for client authentication; its extended key usage must have clientAuth"
    )]
    MachineUsage,
    #[error(
        "the machine key's signature is not over this connection, this CSR and this request key, or by no scheme that is taken ({scheme:#06x})"
    )]
    MachineSignature { scheme: u16 },
}

impl AttestError {
    /// One word of a closed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed(IssuanceError::Key { field: "csr_der", .. }) => "csr_not_p256",
            Self::Malformed(IssuanceError::CsrNotPossessed) => "csr_signature",
            Self::Malformed(IssuanceError::CsrMalformed) => "csr_malformed",
            Self::Malformed(_) => "malformed",
            Self::HostSignature(_) => "host_signature",
            Self::SvidNotPresented => "svid_not_presented",
            Self::NotConfigured(_) => "attestor_not_configured",
            Self::Evidence(evidence) => evidence.word(),
        }
    }

    /// Whether the request itself is wrong, rather than what it proves.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }

    /// Whether the same request may be good later.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Evidence(
                Evidence::TokenKeysUnavailable(_)
                    | Evidence::TokenNotYetValid { .. }
                    | Evidence::PodWithoutAddress
                    | Evidence::ReviewUnavailable(_)
            )
        )
    }
}

impl Evidence {
    fn word(&self) -> &'static str {
        match self {
            Self::TokenMalformed(_) => "jwt_malformed",
            Self::TokenAlgorithm(_) => "jwt_algorithm",
            Self::TokenKey { .. } => "jwt_key_unknown",
            Self::TokenSignature => "jwt_signature",
            Self::TokenIssuer { .. } => "jwt_issuer",
            Self::TokenAudience { .. } => "jwt_audience",
            Self::TokenExpired { .. } => "jwt_expired",
            Self::TokenNotYetValid { .. } => "jwt_not_yet_valid",
            Self::TokenNotPodBound(_) => "jwt_not_pod_bound",
            Self::TokenContradicts(_) => "jwt_contradicts",
            Self::TokenKeysUnavailable(_) => "jwt_keys_unavailable",
            Self::TokenRefused(_) => "jwt_refused",
            Self::PodGone(_) => "pod_gone",
            Self::PodHostNetwork => "pod_host_network",
            Self::PodWithoutAddress => "pod_no_address",
            Self::ReviewUnavailable(_) => "review_unavailable",
            Self::MachineMalformed(_) => "machine_malformed",
            Self::MachineUntrusted(_) => "machine_untrusted",
            Self::MachineExpired { .. } => "machine_expired",
            Self::MachineUsage => "machine_usage",
            Self::MachineSignature { .. } => "machine_signature",
        }
    }
}
