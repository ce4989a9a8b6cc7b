//! From a caller to a proof: who asks, by what right, for which public key. Pure: everything that
//! can be shown from the request and the connection alone is shown here; what only the journal
//! knows is `authority`'s to ask.
//!
//! Never: takes anything from a CSR but its public key, reads the journal, or lets a `Proven` be
//! made elsewhere.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use myelin_identity::issuance::{
    Attestation, EXPORTER_BYTES, IssuanceError, IssueRequest, Lineage, proto, verify_host_proof,
};
use myelin_identity::svid::{KeyError, P256Spki};
use myelin_identity::verify::Peer;

use crate::journal::Hex;

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

/// By what right a certificate is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Holds a join token with this hash.
    Token { secret_hash: Hex },
    /// Holds a host key, and nothing else any more.
    HostAlone,
    /// Holds a host key and the SVID with this serial, and says which generation it is.
    Renewal { lineage: Hex, generation: u64, serial: Hex },
    /// Holds the same, and wants the workload's own certificate beside it.
    Companion { lineage: Hex, generation: u64, serial: Hex },
}

/// A request whose every signature was verified. Only [`prove`] makes one.
#[derive(Clone, Debug)]
pub struct Proven {
    claimed: Claimed,
    host: Hex,
    csr_key: P256Spki,
    request_key: Hex,
    lifetime: Duration,
}

/// Why a caller proved nothing. The caller is to blame.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error(transparent)]
    Malformed(#[from] IssuanceError),
    #[error(
        "the host key's signature is not over this connection, this CSR and this request key: {0}; sign the exporter of the connection that the request is sent on"
    )]
    HostSignature(KeyError),
    #[error(
        "a renewal must come on a connection that presents the current SVID; connect with it, or attest with the host key alone"
    )]
    SvidNotPresented,
}

/// Verifies the CSR's self-signature and the host key's signature over this very connection.
pub fn prove(request: proto::IssueRequest, caller: &Caller) -> Result<Proven, AttestError> {
    let request = IssueRequest::try_from(request)?;
    let host_spki = request.attestation.host_spki();
    let csr_der = request.csr.der();
    verify_host_proof(
        host_spki,
        &caller.exporter,
        csr_der,
        &request.request_key,
        &request.host_signature,
    )
    .map_err(AttestError::HostSignature)?;
    let claimed = match &request.attestation {
        Attestation::Join { secret, .. } => {
            Claimed::Token { secret_hash: Hex(secret.stored_hash().to_vec()) }
        }
        Attestation::Host { lineage: None, .. } => Claimed::HostAlone,
        Attestation::Host { lineage: Some(Lineage { id, generation }), .. } => Claimed::Renewal {
            lineage: Hex(id.as_bytes().to_vec()),
            generation: *generation,
            serial: presented_serial(caller)?,
        },
        Attestation::Companion { vouched_by: Lineage { id, generation }, .. } => {
            Claimed::Companion {
                lineage: Hex(id.as_bytes().to_vec()),
                generation: *generation,
                serial: presented_serial(caller)?,
            }
        }
    };
    Ok(Proven {
        claimed,
        host: Hex(host_spki.fingerprint().to_vec()),
        csr_key: *request.csr.key(),
        request_key: Hex(request.request_key.as_bytes().to_vec()),
        lifetime: Duration::from_secs(request.lifetime_seconds.unwrap_or(0)),
    })
}

/// The SVID that the connection proved.
fn presented_serial(caller: &Caller) -> Result<Hex, AttestError> {
    let peer = caller.peer.as_ref().ok_or(AttestError::SvidNotPresented)?;
    Ok(Hex(peer.serial.as_bytes().to_vec()))
}

impl Claimed {
    /// The attestor's word in logs and metrics.
    pub fn attestor(&self) -> &'static str {
        match self {
            Self::Token { .. } => "join_token",
            Self::HostAlone => "host_key",
            Self::Renewal { .. } => "renewal",
            Self::Companion { .. } => "companion",
        }
    }

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
        Self { claimed, host, csr_key, request_key, lifetime: Duration::ZERO }
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
        None => "none",
    }
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
        }
    }

    /// Whether the request itself is wrong, rather than what it proves.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

#[cfg(test)]
mod tests;
