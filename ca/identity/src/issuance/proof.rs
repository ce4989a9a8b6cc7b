//! What a host key signs: this TLS connection, this request, this intention.
//! Called by the sidecar (sign) and by the CA (verify).
//! Never: a key that is kept here; the caller lends it for the call.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::signature::Ed25519KeyPair;

use super::{HostSpki, RequestKey};
use crate::svid::KeyError;
use crate::x509::sha256;

/// The TLS exporter's label (RFC 8446, section 7.5), with no context. The exported bytes differ for
/// each connection and each end has them, so a signature over them cannot be carried to another
/// one.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-myelin-issue";

/// How many bytes to export.
pub const EXPORTER_BYTES: usize = 32;

/// Sets these bytes apart from everything else that the host key might ever sign.
const PROOF_LABEL: &[u8] = b"myelin issue v1";

/// The same for a machine's own key, which signs for others too: TLS, SSH, its configuration.
const MACHINE_LABEL: &[u8] = b"myelin machine v1";

/// The byte string under a host's signature.
pub struct HostProof;

impl HostProof {
    /// Label, exporter, SHA-256 of the request, request key. All have fixed lengths, so none can be
    /// shifted into another.
    pub fn bytes(
        exporter: &[u8; EXPORTER_BYTES],
        csr_der: &[u8],
        request_key: &RequestKey,
    ) -> Vec<u8> {
        Self::labelled(PROOF_LABEL, exporter, csr_der, request_key)
    }

    /// What a machine's key signs beside the host key: the same under a label of its own, so that
    /// neither signature stands for the other.
    pub fn machine_bytes(
        exporter: &[u8; EXPORTER_BYTES],
        csr_der: &[u8],
        request_key: &RequestKey,
    ) -> Vec<u8> {
        Self::labelled(MACHINE_LABEL, exporter, csr_der, request_key)
    }

    fn labelled(
        label: &[u8],
        exporter: &[u8; EXPORTER_BYTES],
        csr_der: &[u8],
        request_key: &RequestKey,
    ) -> Vec<u8> {
        let mut bytes = label.to_vec();
        bytes.extend(exporter);
        bytes.extend(sha256(csr_der));
        bytes.extend(request_key.as_bytes());
        bytes
    }
}

/// The host's word for one request on one connection.
pub fn sign_host_proof(
    host_key: &Ed25519KeyPair,
    exporter: &[u8; EXPORTER_BYTES],
    csr_der: &[u8],
    request_key: &RequestKey,
) -> Vec<u8> {
    let signature = host_key.sign(&HostProof::bytes(exporter, csr_der, request_key));
    signature.as_ref().to_vec()
}

/// `exporter` is the verifier's own, of the connection that the request came on.
pub fn verify_host_proof(
    host_spki: &HostSpki,
    exporter: &[u8; EXPORTER_BYTES],
    csr_der: &[u8],
    request_key: &RequestKey,
    signature: &[u8],
) -> Result<(), KeyError> {
    host_spki.verify(&HostProof::bytes(exporter, csr_der, request_key), signature)
}
