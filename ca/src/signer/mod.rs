//! The only room that holds a CA key: writes templates as X.509 and signs them. `rotation` keeps
//! one for the issuing intermediate, and opens the one of the root only to make a successor.
//!
//! Never: decides what a certificate says, writes a key anywhere but sealed, or shows one in a log.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::seal::{self, SealError, SealKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::template::{IssuerTemplate, Leaf, Serial, Validity};

/// Bound into every sealed key, so that another sealed secret cannot be passed off as one.
const KEY_AAD: &[u8] = b"myelin-ca issuer key v1";

/// A CA certificate and its key, able to sign.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    validity: Validity,
}

/// What of a signer may rest on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedIssuer {
    pub certificate_der: Vec<u8>,
    pub sealed_key: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Configuration: the wrong seal key, or a damaged store.
    #[error(
        "cannot open the CA key: {0}; start with the seal key file that this data directory was made with"
    )]
    Sealed(String),
    #[error("cannot seal a new CA key: {0}")]
    Sealing(SealError),
    #[error(
        "cannot read the CA certificate of this store: {0}; restore the data directory from a backup"
    )]
    Certificate(String),
    /// Us.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

impl Signer {
    /// Makes the root: signs itself.
    pub fn make_root(
        template: &IssuerTemplate,
        seal_key: &SealKey,
    ) -> Result<(Self, SealedIssuer), SignerError> {
        let key = KeyPair::generate()?;
        let certificate = issuer_params(template)?.self_signed(&key)?.der().clone();
        Self::from_new(key, certificate, template.validity, seal_key)
    }

    /// Makes an issuer below this one, with a new key.
    pub fn make_issuer(
        &self,
        template: &IssuerTemplate,
        seal_key: &SealKey,
    ) -> Result<(Self, SealedIssuer), SignerError> {
        let key = KeyPair::generate()?;
        let mut params = issuer_params(template)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Self::from_new(key, certificate, template.validity, seal_key)
    }

    /// Opens what rested on disk.
    pub fn open(sealed: &SealedIssuer, seal_key: &SealKey) -> Result<Self, SignerError> {
        let key = seal::open(seal_key, KEY_AAD, &sealed.sealed_key)
            .map_err(|error| SignerError::Sealed(error.to_string()))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(&key[..]))
            .map_err(|error| SignerError::Sealed(error.to_string()))?;
        let certificate = CertificateDer::from(sealed.certificate_der.clone());
        let validity = read_validity(&certificate, &key)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, validity })
    }

    /// Signs what the template says, nothing else.
    pub fn sign_leaf(&self, leaf: &Leaf) -> Result<CertificateDer<'static>, SignerError> {
        let public_key = SubjectPublicKeyInfo::from_der(&leaf.public_key)?;
        Ok(leaf_params(leaf)?.signed_by(&public_key, &self.issuer)?.der().clone())
    }

    /// ECDSA P-256 with SHA-256 (ASN.1) over a statement of this CA, such as the deny list.
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.issuer.key().sign(statement)?)
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }

    fn from_new(
        key: KeyPair,
        certificate: CertificateDer<'static>,
        validity: Validity,
        seal_key: &SealKey,
    ) -> Result<(Self, SealedIssuer), SignerError> {
        let sealed_key =
            seal::seal(seal_key, KEY_AAD, key.serialized_der()).map_err(SignerError::Sealing)?;
        let sealed = SealedIssuer { certificate_der: certificate.to_vec(), sealed_key };
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok((Self { issuer, certificate, validity }, sealed))
    }
}

fn leaf_params(leaf: &Leaf) -> Result<CertificateParams, rcgen::Error> {
    let mut params = blank(&leaf.serial, leaf.validity);
    params.subject_alt_names.push(SanType::URI(leaf.spiffe_id.as_str().try_into()?));
    params.subject_alt_names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
    for name in &leaf.names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn issuer_params(template: &IssuerTemplate) -> Result<CertificateParams, rcgen::Error> {
    let mut params = blank(&template.serial, template.validity);
    params.distinguished_name.push(DnType::CommonName, template.common_name.as_str());
    // SPIFFE X.509-SVID, section 4.1: a signing certificate carries the ID of its trust domain.
    let trust_domain = format!("spiffe://{}", template.trust_domain);
    params.subject_alt_names.push(SanType::URI(trust_domain.as_str().try_into()?));
    params.is_ca = IsCa::Ca(match template.path_length {
        Some(length) => BasicConstraints::Constrained(length),
        None => BasicConstraints::Unconstrained,
    });
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn blank(serial: &Serial, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(validity.not_before);
    params.not_after = epoch + Duration::from_secs(validity.not_after);
    params
}

/// The certificate's validity, once it is seen to belong to the key.
fn read_validity(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<Validity, SignerError> {
    use rcgen::PublicKeyData as _;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| SignerError::Certificate(error.to_string()))?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(SignerError::Certificate("it is for another key".to_owned()));
    }
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = parsed.validity();
    Ok(Validity {
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
    })
}

#[cfg(test)]
mod tests;
