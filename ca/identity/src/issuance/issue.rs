//! `Issue`: request and answer as domain types, every field bounded and parsed. Called by the CA's
//! API (reads requests, writes answers) and the sidecar's CA client (the reverse).
//! Never: signatures by the host key; those need the connection's exporter, see `proof`.

// SPDX-License-Identifier: Apache-2.0

use rustls_pki_types::CertificateDer;

use super::{
    Csr, HOST_SIGNATURE_BYTES, HostSpki, IssuanceError, LineageId, MachineProof, RequestKey,
    ServiceToken, TokenSecret, at_most, exactly, proto,
};
use crate::bundle::{MAX_CERTIFICATE_BYTES, TrustBundle};
use crate::svid::MAX_CHAIN_CERTIFICATES;

/// The `hello` frame has 8 KiB for it.
pub const MAX_LOG_PROOF_BYTES: usize = 8 * 1024;

/// What a sidecar asks for. `host_signature` is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueRequest {
    pub csr: Csr,
    pub request_key: RequestKey,
    pub attestation: Attestation,
    /// Ed25519, see [`super::verify_host_proof`].
    pub host_signature: Vec<u8>,
    /// Seconds; `None` asks for the default.
    pub lifetime_seconds: Option<u64>,
}

/// How the caller says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// The first time: a token's secret, and the key to know this host by from now on.
    Join { secret: TokenSecret, host_spki: HostSpki },
    /// A known host. With a lineage it renews (the connection then carries the current SVID),
    /// without one it starts a new lineage after a reboot or an expiry.
    Host { host_spki: HostSpki, lineage: Option<Lineage> },
    /// A known host that asks for its workload's own certificate. The connection carries the SVID
    /// that vouches for it, which stands at `vouched_by`.
    Companion { host_spki: HostSpki, vouched_by: Lineage },
    /// A pod: a fresh service-account token at every issue, beside the host key.
    Kubernetes { token: ServiceToken, host_spki: HostSpki, lineage: Option<Lineage> },
    /// A machine with a certificate of its own, proven at every issue, beside the host key.
    Machine { proof: MachineProof, host_spki: HostSpki, lineage: Option<Lineage> },
}

/// One line of SVIDs, and how many have been issued on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    pub id: LineageId,
    pub generation: u64,
}

/// What the CA answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueResponse {
    /// Leaf first, then its issuers; not verified yet.
    pub chain: Vec<CertificateDer<'static>>,
    pub lineage: Lineage,
    pub bundle: TrustBundle,
    pub log_proof: Vec<u8>,
}

impl Attestation {
    /// The key that must have signed the request, whichever way.
    pub fn host_spki(&self) -> &HostSpki {
        match self {
            Self::Join { host_spki, .. }
            | Self::Host { host_spki, .. }
            | Self::Companion { host_spki, .. }
            | Self::Kubernetes { host_spki, .. }
            | Self::Machine { host_spki, .. } => host_spki,
        }
    }

    /// The lineage that is to go on; the connection then carries its SVID.
    pub fn lineage(&self) -> Option<Lineage> {
        match self {
            Self::Join { .. } | Self::Companion { .. } => None,
            Self::Host { lineage, .. }
            | Self::Kubernetes { lineage, .. }
            | Self::Machine { lineage, .. } => *lineage,
        }
    }
}

impl TryFrom<proto::IssueRequest> for IssueRequest {
    type Error = IssuanceError;

    fn try_from(wire: proto::IssueRequest) -> Result<Self, IssuanceError> {
        // What is cheap to refuse is looked at before the CSR's signature is.
        let request_key = RequestKey::from_bytes(exactly("request_key", &wire.request_key)?);
        at_most("host_signature", &wire.host_signature, HOST_SIGNATURE_BYTES)?;
        let attestation =
            wire.attestation.ok_or(IssuanceError::Missing("attestation"))?.try_into()?;
        Ok(Self {
            csr: Csr::parse(wire.csr_der)?,
            request_key,
            attestation,
            host_signature: wire.host_signature,
            lifetime_seconds: (wire.lifetime_seconds != 0).then_some(wire.lifetime_seconds),
        })
    }
}

impl From<IssueRequest> for proto::IssueRequest {
    fn from(request: IssueRequest) -> Self {
        Self {
            csr_der: request.csr.der().to_vec(),
            request_key: request.request_key.as_bytes().to_vec(),
            attestation: Some(request.attestation.into()),
            host_signature: request.host_signature,
            lifetime_seconds: request.lifetime_seconds.unwrap_or(0),
        }
    }
}

impl TryFrom<proto::issue_request::Attestation> for Attestation {
    type Error = IssuanceError;

    fn try_from(wire: proto::issue_request::Attestation) -> Result<Self, IssuanceError> {
        use proto::issue_request::Attestation as Wire;
        match wire {
            Wire::JoinToken(proto::JoinToken { secret, host_spki }) => Ok(Self::Join {
                secret: TokenSecret::from_bytes(exactly("join_token.secret", &secret)?),
                host_spki: spki(&host_spki)?,
            }),
            Wire::Host(proto::Host { host_spki, lineage }) => Ok(Self::Host {
                host_spki: spki(&host_spki)?,
                lineage: lineage.map(Lineage::try_from).transpose()?,
            }),
            Wire::Companion(proto::Companion { host_spki, vouched_by }) => {
                let vouched_by =
                    vouched_by.ok_or(IssuanceError::Missing("companion.vouched_by"))?.try_into()?;
                Ok(Self::Companion { host_spki: spki(&host_spki)?, vouched_by })
            }
            Wire::Kubernetes(proto::KubernetesToken { token, host_spki, lineage }) => {
                Ok(Self::Kubernetes {
                    token: ServiceToken::new(&token)?,
                    host_spki: spki(&host_spki)?,
                    lineage: lineage.map(Lineage::try_from).transpose()?,
                })
            }
            Wire::Machine(machine) => Ok(Self::Machine {
                proof: MachineProof::read(machine.chain_der, machine.scheme, machine.signature)?,
                host_spki: spki(&machine.host_spki)?,
                lineage: machine.lineage.map(Lineage::try_from).transpose()?,
            }),
        }
    }
}

impl From<Attestation> for proto::issue_request::Attestation {
    fn from(attestation: Attestation) -> Self {
        match attestation {
            Attestation::Join { secret, host_spki } => Self::JoinToken(proto::JoinToken {
                secret: secret.reveal().to_vec(),
                host_spki: host_spki.as_bytes().to_vec(),
            }),
            Attestation::Host { host_spki, lineage } => Self::Host(proto::Host {
                host_spki: host_spki.as_bytes().to_vec(),
                lineage: lineage.map(Into::into),
            }),
            Attestation::Companion { host_spki, vouched_by } => Self::Companion(proto::Companion {
                host_spki: host_spki.as_bytes().to_vec(),
                vouched_by: Some(vouched_by.into()),
            }),
            Attestation::Kubernetes { token, host_spki, lineage } => {
                Self::Kubernetes(proto::KubernetesToken {
                    token: token.reveal().to_owned(),
                    host_spki: host_spki.as_bytes().to_vec(),
                    lineage: lineage.map(Into::into),
                })
            }
            Attestation::Machine { proof, host_spki, lineage } => {
                Self::Machine(proto::MachineCertificate {
                    host_spki: host_spki.as_bytes().to_vec(),
                    lineage: lineage.map(Into::into),
                    ..proof.into()
                })
            }
        }
    }
}

impl TryFrom<proto::Lineage> for Lineage {
    type Error = IssuanceError;

    fn try_from(wire: proto::Lineage) -> Result<Self, IssuanceError> {
        let id = LineageId::from_bytes(exactly("lineage.id", &wire.id)?);
        Ok(Self { id, generation: wire.generation })
    }
}

impl From<Lineage> for proto::Lineage {
    fn from(lineage: Lineage) -> Self {
        Self { id: lineage.id.as_bytes().to_vec(), generation: lineage.generation }
    }
}

impl TryFrom<proto::IssueResponse> for IssueResponse {
    type Error = IssuanceError;

    fn try_from(wire: proto::IssueResponse) -> Result<Self, IssuanceError> {
        const CHAIN: &str = "chain_der";
        let limit = MAX_CHAIN_CERTIFICATES as u64;
        let seen = wire.chain_der.len() as u64;
        if seen == 0 {
            return Err(IssuanceError::Missing(CHAIN));
        }
        if seen > limit {
            return Err(IssuanceError::OutOfRange { field: CHAIN, seen, limit });
        }
        for der in &wire.chain_der {
            at_most(CHAIN, der, MAX_CERTIFICATE_BYTES)?;
        }
        at_most("log_proof", &wire.log_proof, MAX_LOG_PROOF_BYTES)?;
        Ok(Self {
            chain: wire.chain_der.into_iter().map(CertificateDer::from).collect(),
            lineage: wire.lineage.ok_or(IssuanceError::Missing("lineage"))?.try_into()?,
            bundle: wire.bundle.ok_or(IssuanceError::Missing("bundle"))?.try_into()?,
            log_proof: wire.log_proof,
        })
    }
}

impl From<IssueResponse> for proto::IssueResponse {
    fn from(response: IssueResponse) -> Self {
        Self {
            chain_der: response.chain.iter().map(|der| der.to_vec()).collect(),
            lineage: Some(response.lineage.into()),
            bundle: Some((&response.bundle).into()),
            log_proof: response.log_proof,
        }
    }
}

fn spki(bytes: &[u8]) -> Result<HostSpki, IssuanceError> {
    HostSpki::try_from(bytes).map_err(|why| IssuanceError::Key { field: "host_spki", why })
}
