//! The issuance protocol as sidecar and CA agree on it: the wire messages (generated from
//! `proto/myelin.proto`), the domain types that they become with every bound checked, and what gets
//! signed. Called by the CA's API and by the sidecar's CA client.
//! Never: decisions. Who gets a certificate, and what it says, is the CA's business alone.

// SPDX-License-Identifier: Apache-2.0

mod bundle;
mod csr;
mod directory;
mod evidence;
mod host_key;
mod issue;
mod keys;
mod proof;
mod succession;
mod token;

#[cfg(test)]
mod tests;

pub use bundle::{BundleAck, BundleUpdate};
pub use csr::{Csr, MAX_CSR_BYTES};
pub use directory::{DirectoryAnswer, DirectoryQuestion, MAX_PROTOCOL_BYTES, MYELIN_PROTOCOL};
pub use evidence::{
    MAX_MACHINE_CHAIN, MAX_MACHINE_SIGNATURE_BYTES, MAX_SERVICE_TOKEN_BYTES, MachineProof,
    ServiceToken,
};
pub use host_key::{HOST_SIGNATURE_BYTES, HOST_SPKI_BYTES, HostSpki};
pub use issue::{Attestation, IssueRequest, IssueResponse, Lineage, MAX_LOG_PROOF_BYTES};
pub use keys::{LineageId, RequestKey, TokenSecret};
pub use proof::{EXPORTER_BYTES, EXPORTER_LABEL, HostProof, sign_host_proof, verify_host_proof};
pub use succession::read_succession;
pub use token::{JoinToken, TokenError};

use crate::bundle::{BundleError, DenyError, ForeignError};
use crate::id::{IdError, TrustDomain};
use crate::log::NamedLogError;
use crate::svid::KeyError;

/// Messages of package `myelin.v1`. The CA and the sidecar map their stubs onto these with
/// `extern_path(".myelin.v1", "::myelin_identity::issuance::proto")`.
#[allow(clippy::all, clippy::use_self, clippy::or_fun_call, unreachable_pub, missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/myelin.v1.rs"));

    impl std::fmt::Debug for JoinToken {
        /// The secret is left out: requests get logged.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JoinToken(..)")
        }
    }

    impl std::fmt::Debug for KubernetesToken {
        /// The token is left out, likewise.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("KubernetesToken(..)")
        }
    }
}

/// What a service-account token for this CA must name as its audience.
pub fn token_audience(trust_domain: &TrustDomain) -> String {
    format!("myelin-ca/{trust_domain}")
}

/// Why a message of the other side is refused. The other side is to blame, except in
/// `NoRandomness`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuanceError {
    #[error("the message lacks `{0}`; sidecar and CA may be of different versions")]
    Missing(&'static str),
    #[error("`{field}` has {bytes} bytes; expected {expected}")]
    Length { field: &'static str, bytes: usize, expected: usize },
    #[error("`{field}` has {bytes} bytes, more than {limit}")]
    TooLong { field: &'static str, bytes: usize, limit: usize },
    #[error("`{field}` is {seen}, out of range; at most {limit}")]
    OutOfRange { field: &'static str, seen: u64, limit: u64 },
    #[error("`{field}` is no SPIFFE ID or trust domain: {why}")]
    Id { field: &'static str, why: IdError },
    #[error("`{field}`: {why}")]
    Key { field: &'static str, why: KeyError },
    #[error("`csr_der` is no well-formed PKCS#10 request")]
    CsrMalformed,
    #[error("`csr_der` is not signed by its own key with ECDSA P-256 and SHA-256")]
    CsrNotPossessed,
    #[error("`protocol` holds {seen:?}; only a-z 0-9 . : / - may be there")]
    Protocol { seen: char },
    #[error("`bundle`: {0}")]
    Bundle(#[from] BundleError),
    #[error("`root_log.log`: {0}")]
    RootLog(#[from] NamedLogError),
    #[error("`deny_list`: {0}")]
    DenyList(#[from] DenyError),
    #[error("`foreign`: {0}")]
    Foreign(#[from] ForeignError),
    #[error("a serial number in `deny_list` is not 1 to 20 bytes")]
    Serial,
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// A field of fixed length.
fn exactly<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], IssuanceError> {
    bytes.try_into().map_err(|_| IssuanceError::Length { field, bytes: bytes.len(), expected: N })
}

fn at_most(field: &'static str, bytes: &[u8], limit: usize) -> Result<(), IssuanceError> {
    if bytes.len() > limit {
        return Err(IssuanceError::TooLong { field, bytes: bytes.len(), limit });
    }
    Ok(())
}
