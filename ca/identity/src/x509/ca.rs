//! What makes a certificate that of a CA, and whether one CA's key signed another certificate.
//! Called by `bundle` for roots and for the signers of deny lists, by `verify` for intermediates.
//! Never: leaves (those are read in `svid`), trust: a fact here says nothing about being believed.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{Malformed, P256Spki, Validity, parse, validity};

/// A parsed certificate that may sign others.
pub(crate) struct CaFacts<'a> {
    certificate: X509Certificate<'a>,
    pub(crate) validity: Validity,
    /// How many intermediates may stand between it and a leaf; `None` is any number.
    pub(crate) path_length: Option<u32>,
}

/// Why a certificate is not that of a CA that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaFault {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("its basic constraints do not say CA:TRUE")]
    NotCa,
    #[error("its key usage lacks keyCertSign")]
    NoKeyCertSign,
    #[error("its key is neither ECDSA P-256 nor P-384 (RSA is not accepted)")]
    WrongKey,
    #[error("its signature is not by its issuer's key")]
    BadSignature,
}

impl<'a> CaFacts<'a> {
    pub(crate) fn read(der: &'a [u8]) -> Result<Self, CaFault> {
        let certificate = parse(der)?;
        let path_length = certificate
            .basic_constraints()
            .map_err(|_| Malformed::Extension("basic constraints"))?
            .filter(|constraints| constraints.value.ca)
            .ok_or(CaFault::NotCa)?
            .value
            .path_len_constraint;
        let signs = certificate
            .key_usage()
            .map_err(|_| Malformed::Extension("key usage"))?
            .is_some_and(|usage| usage.value.key_cert_sign());
        if !signs {
            return Err(CaFault::NoKeyCertSign);
        }
        algorithm_of(certificate.public_key())?;
        let validity = validity(&certificate)?;
        Ok(Self { certificate, validity, path_length })
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.certificate.subject().as_raw() == self.certificate.issuer().as_raw()
    }

    /// Whether `issuer`'s name and key stand under this certificate.
    pub(crate) fn is_issued_by(&self, issuer: &CaFacts<'_>) -> Result<(), CaFault> {
        if self.certificate.issuer().as_raw() != issuer.certificate.subject().as_raw() {
            return Err(CaFault::BadSignature);
        }
        let key = issuer.certificate.public_key();
        let algorithm = algorithm_of(key)?;
        let outer = &self.certificate.signature_algorithm;
        if *outer != self.certificate.tbs_certificate.signature
            || outer.algorithm
                != if algorithm.is_p256 {
                    OID_SIG_ECDSA_WITH_SHA256
                } else {
                    OID_SIG_ECDSA_WITH_SHA384
                }
        {
            return Err(CaFault::BadSignature);
        }
        UnparsedPublicKey::new(algorithm.verification, &key.subject_public_key.data)
            .verify(
                self.certificate.tbs_certificate.as_ref(),
                &self.certificate.signature_value.data,
            )
            .map_err(|_| CaFault::BadSignature)
    }

    /// Whether this CA's key signed a statement that is no certificate.
    pub(crate) fn verify_statement(&self, message: &[u8], signature: &[u8]) -> Result<(), CaFault> {
        let key = self.certificate.public_key();
        UnparsedPublicKey::new(algorithm_of(key)?.verification, &key.subject_public_key.data)
            .verify(message, signature)
            .map_err(|_| CaFault::BadSignature)
    }

    /// The key, if it is a P-256 one.
    pub(crate) fn p256_key(&self) -> Option<P256Spki> {
        P256Spki::try_from(self.certificate.public_key().raw).ok()
    }
}

struct KeyAlgorithm {
    verification: &'static dyn VerificationAlgorithm,
    is_p256: bool,
}

fn algorithm_of(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyAlgorithm, CaFault> {
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .ok_or(CaFault::WrongKey)?;
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(CaFault::WrongKey);
    }
    if curve == OID_EC_P256 {
        Ok(KeyAlgorithm { verification: &ECDSA_P256_SHA256_ASN1, is_p256: true })
    } else if curve == OID_NIST_EC_P384 {
        Ok(KeyAlgorithm { verification: &ECDSA_P384_SHA384_ASN1, is_p256: false })
    } else {
        Err(CaFault::WrongKey)
    }
}
