//! Attestor: the host key, proven at every issue over the very connection that the request came
//! on. Alone it brings back a machine that once redeemed a token.
//!
//! Never: takes a signature from another connection.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::{IssueRequest, verify_host_proof};

use super::{AttestError, Caller};

pub(super) fn verify(request: &IssueRequest, caller: &Caller) -> Result<(), AttestError> {
    verify_host_proof(
        request.attestation.host_spki(),
        &caller.exporter,
        request.csr.der(),
        &request.request_key,
        &request.host_signature,
    )
    .map_err(AttestError::HostSignature)
}
