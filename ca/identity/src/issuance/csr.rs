//! A certificate request, of which only the public key and the proof that its owner has the private
//! one are taken. Called by `issue` for what came over the wire.
//! Never: the names, usages or CA flag that a request asks for; they are not even read
//! (CVE-2021-27098).

// SPDX-License-Identifier: Apache-2.0

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

use super::{IssuanceError, at_most};
use crate::svid::P256Spki;

/// A request that asks for nothing is 200 bytes; this leaves room for the attributes that ordinary
/// tools add, and bounds what a stranger may make us parse.
pub const MAX_CSR_BYTES: usize = 4096;

/// A request whose signature has been checked: proof of possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    der: Vec<u8>,
    key: P256Spki,
}

impl Csr {
    /// Takes PKCS#10 in DER with an ECDSA P-256 key.
    pub fn parse(der: Vec<u8>) -> Result<Self, IssuanceError> {
        const FIELD: &str = "csr_der";
        at_most(FIELD, &der, MAX_CSR_BYTES)?;
        let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
            return Err(IssuanceError::CsrMalformed);
        };
        let info = &request.certification_request_info;
        let key = P256Spki::try_from(info.subject_pki.raw)
            .map_err(|why| IssuanceError::Key { field: FIELD, why })?;
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(IssuanceError::CsrNotPossessed);
        }
        key.verify(info.raw, &request.signature_value.data)
            .map_err(|_| IssuanceError::CsrNotPossessed)?;
        Ok(Self { der, key })
    }

    /// The key to certify.
    pub fn key(&self) -> &P256Spki {
        &self.key
    }

    /// The bytes as they came: what the host's signature covers.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}
