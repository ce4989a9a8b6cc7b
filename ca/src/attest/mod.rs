//! From a caller to a proof: who asks, by what right, for which public key. One file an attestor,
//! all behind [`Attestors::prove`]; what only the journal knows (is this token unused, which entry
//! holds for these selectors) is `authority`'s to ask.
//!
//! | attestor | proves | file |
//! |---|---|---|
//! | join token | that an operator gave this machine a secret | `join_token` |
//! | host key | the key that redeemed a token once | `host_key` |
//! | current SVID | the certificate that is to be renewed | `current_svid` |
//! | Kubernetes | which pod, by its service-account token | `kubernetes` |
//! | machine | the key of a machine's own certificate | `machine` |
//!
//! Every request proves a host key over its very TLS connection beside all that.
//!
//! Never: takes anything from a CSR but its public key, reads the journal, or lets a `Proven` be
//! made elsewhere.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use myelin_identity::issuance::{Attestation, EXPORTER_BYTES, IssueRequest, proto};
use myelin_identity::svid::P256Spki;
use myelin_identity::verify::Peer;

use crate::clock::UnixSeconds;
use crate::journal::{Hex, PodRecord};

mod attested;
mod current_svid;
mod error;
mod host_key;
mod join_token;
pub mod kubernetes;
pub mod machine;

pub use attested::{
    Attested, BoundTo, Lasts, MAX_SELECTOR_BYTES, Selector, SelectorError, Whereabouts,
};
pub use error::{AttestError, Evidence};

/// Where a request came from, as the TLS connection itself says.
#[derive(Clone, Debug)]
pub struct Caller {
    pub remote: RemoteAddr,
    /// Whoever presented a certificate; it was verified in the handshake.
    pub peer: Option<Peer>,
    /// This connection's exporter, which ties a host's signature to it.
    pub exporter: [u8; EXPORTER_BYTES],
}

/// The other end of the TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// By what right a certificate is asked for, as far as the journal has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Holds a join token with this hash.
    Token { secret_hash: Hex },
    /// Holds a host key, and no SVID any more.
    HostAlone,
    /// Holds a host key and the SVID with this serial, and says which generation it is.
    Renewal { lineage: Hex, generation: u64, serial: Hex },
    /// Holds the same, and wants the workload's own certificate beside it.
    Companion { lineage: Hex, generation: u64, serial: Hex },
}

/// A request whose every signature was verified. Only [`Attestors::prove`] makes one.
#[derive(Clone, Debug)]
pub struct Proven {
    claimed: Claimed,
    attested: Option<Attested>,
    host: Hex,
    csr_key: P256Spki,
    request_key: Hex,
    lifetime: Duration,
}

/// The attestors that this CA was configured with, beside those that need no configuration.
#[derive(Default)]
pub struct Attestors {
    pub kubernetes: Option<kubernetes::Kubernetes>,
    pub machine: Option<machine::Machines>,
}

impl Attestors {
    /// Verifies the CSR's self-signature, the host key's signature over this very connection, and
    /// the evidence of the attestor that the request names.
    pub async fn prove(
        &self,
        request: proto::IssueRequest,
        caller: &Caller,
        now: UnixSeconds,
    ) -> Result<Proven, AttestError> {
        let request = IssueRequest::try_from(request)?;
        host_key::verify(&request, caller)?;
        let attested = match &request.attestation {
            Attestation::Join { .. } | Attestation::Host { .. } | Attestation::Companion { .. } => {
                None
            }
            Attestation::Kubernetes { token, .. } => {
                let attestor = self.kubernetes.as_ref();
                let attestor = attestor.ok_or(AttestError::NotConfigured("kubernetes"))?;
                Some(attestor.attest(token, now).await?)
            }
            Attestation::Machine { proof, .. } => {
                let attestor = self.machine.as_ref();
                let attestor = attestor.ok_or(AttestError::NotConfigured("machine"))?;
                Some(attestor.attest(proof, &request, caller, now)?)
            }
        };
        let claimed = match (&request.attestation, request.attestation.lineage()) {
            (Attestation::Join { secret, .. }, _) => join_token::claim(secret),
            (Attestation::Companion { vouched_by, .. }, _) => {
                current_svid::vouch(vouched_by, caller)?
            }
            (_, None) => Claimed::HostAlone,
            (_, Some(lineage)) => current_svid::claim(&lineage, caller)?,
        };
        Ok(Proven {
            claimed,
            attested,
            host: Hex(request.attestation.host_spki().fingerprint().to_vec()),
            csr_key: *request.csr.key(),
            request_key: Hex(request.request_key.as_bytes().to_vec()),
            lifetime: Duration::from_secs(request.lifetime_seconds.unwrap_or(0)),
        })
    }
}

impl Attestors {
    /// Asks the API server where a pod is that attested before.
    pub async fn whereabouts(&self, pod: &PodRecord) -> Whereabouts {
        match &self.kubernetes {
            Some(attestor) => attestor.whereabouts(pod).await,
            None => Whereabouts::Unknown,
        }
    }
}

impl Claimed {
    /// Whether the claim is about this lineage.
    pub fn names(&self, lineage: &Hex) -> bool {
        self.lineage() == Some(lineage)
    }

    pub fn lineage(&self) -> Option<&Hex> {
        match self {
            Self::Renewal { lineage, .. } | Self::Companion { lineage, .. } => Some(lineage),
            Self::Token { .. } | Self::HostAlone => None,
        }
    }
}

impl Proven {
    pub fn claimed(&self) -> &Claimed {
        &self.claimed
    }

    /// What evidence from outside the mesh shows; it is asked for at every issue.
    pub fn attested(&self) -> Option<&Attested> {
        self.attested.as_ref()
    }

    /// The attestor's word in logs, metrics and the journal.
    pub fn attestor(&self) -> &'static str {
        match (&self.attested, &self.claimed) {
            (Some(attested), _) => attested.attestor,
            (None, Claimed::Token { .. }) => "join_token",
            (None, Claimed::HostAlone) => "host_key",
            (None, Claimed::Renewal { .. }) => "renewal",
            (None, Claimed::Companion { .. }) => "companion",
        }
    }

    /// SHA-256 of the host key's public half.
    pub fn host(&self) -> &Hex {
        &self.host
    }

    /// The key to certify; the caller holds its private half.
    pub fn csr_key(&self) -> &P256Spki {
        &self.csr_key
    }

    pub fn csr_fingerprint(&self) -> Hex {
        Hex(self.csr_key.fingerprint().to_vec())
    }

    pub fn request_key(&self) -> &Hex {
        &self.request_key
    }

    /// Zero asks for the default.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// For tables of decisions, which need proofs without signatures.
    #[cfg(test)]
    pub(crate) fn assumed(
        claimed: Claimed,
        host: Hex,
        csr_key: P256Spki,
        request_key: Hex,
    ) -> Self {
        Self { claimed, attested: None, host, csr_key, request_key, lifetime: Duration::ZERO }
    }

    /// The same with evidence.
    #[cfg(test)]
    pub(crate) fn with(self, attested: Attested) -> Self {
        Self { attested: Some(attested), ..self }
    }
}

/// What kind of right a request names, before anything is proven: for the audit line of a refusal.
pub fn attestor_of(request: &proto::IssueRequest) -> &'static str {
    use proto::issue_request::Attestation as Wire;
    match &request.attestation {
        Some(Wire::JoinToken(_)) => "join_token",
        Some(Wire::Host(host)) if host.lineage.is_some() => "renewal",
        Some(Wire::Host(_)) => "host_key",
        Some(Wire::Companion(_)) => "companion",
        Some(Wire::Kubernetes(_)) => kubernetes::ATTESTOR,
        Some(Wire::Machine(_)) => machine::ATTESTOR,
        None => "none",
    }
}

#[cfg(test)]
mod tests;
