//! The only room that holds a CA key: writes templates as X.509 and signs them. `rotation` keeps
//! one for the issuing intermediate, and opens the one of the root only to make a successor.
//!
//! Never: decides what a certificate says, writes a key anywhere but sealed, or shows one in a log.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::seal::SealError;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;

use self::draft::{Unsigned, finish};
use self::key::Key;
use self::token::TokenFault;
use crate::template::{IssuerTemplate, Leaf, Serial, Validity};

mod draft;
mod key;
pub mod token;
mod vault;

pub use vault::Vault;

/// A CA certificate and its key, able to sign.
pub struct Signer {
    /// Name and key identifier for rcgen, which never has the key.
    issuer: Issuer<'static, Unsigned>,
    key: Key,
    certificate: CertificateDer<'static>,
    /// The name of this issuer, DER.
    subject: Vec<u8>,
    validity: Validity,
}

/// What of a signer may rest on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedIssuer {
    pub certificate_der: Vec<u8>,
    pub sealed_key: Vec<u8>,
}

/// A new key that waits for its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRequest {
    pub csr_der: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
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
    #[error("cannot make a new CA key: {0}")]
    Making(String),
    #[error(
        "cannot read the CA certificate of this store: {0}; restore the data directory from a backup"
    )]
    Certificate(String),
    /// Us.
    #[error("cannot write the certificate: {0}; please report this")]
    Writing(#[from] rcgen::Error),
    #[error("cannot sign: what was written has no place for a signature; please report this")]
    Draft,
    #[error("cannot sign: the CA key made no signature")]
    Refused,
    /// The HSM, or the way to it.
    #[error(transparent)]
    Token(#[from] TokenFault),
    #[error(
        "this CA's key is in a PKCS#11 token; start with --pkcs11-module, --pkcs11-token and --pkcs11-pin-file"
    )]
    NoToken,
}

impl SignerError {
    /// The reason word of a signature that did not come about.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Token(fault) => fault.word(),
            _ => "signer_failed",
        }
    }
}

impl Signer {
    /// Makes the root: signs itself.
    pub fn make_root(
        template: &IssuerTemplate,
        vault: &Vault,
    ) -> Result<(Self, SealedIssuer), SignerError> {
        let (key, at_rest) = vault.make()?;
        let draft = issuer_params(template)?.self_signed(&Unsigned(key.public()))?;
        let certificate = CertificateDer::from(finish(draft.der(), &key)?);
        let sealed = SealedIssuer { certificate_der: certificate.to_vec(), sealed_key: at_rest };
        Ok((Self::of(key, certificate, template.validity)?, sealed))
    }

    /// Makes an issuer below this one, with a new key.
    pub fn make_issuer(
        &self,
        template: &IssuerTemplate,
        vault: &Vault,
    ) -> Result<(Self, SealedIssuer), SignerError> {
        let (key, at_rest) = vault.make()?;
        let certificate = self.certify(template, &key.public())?;
        let sealed = SealedIssuer { certificate_der: certificate.to_vec(), sealed_key: at_rest };
        Ok((Self::of(key, certificate, template.validity)?, sealed))
    }

    /// Signs an issuer below this one whose key (SubjectPublicKeyInfo, DER) is somebody else's.
    pub fn sign_issuer(
        &self,
        template: &IssuerTemplate,
        public_key: &[u8],
    ) -> Result<CertificateDer<'static>, SignerError> {
        self.certify(template, &SubjectPublicKeyInfo::from_der(public_key)?)
    }

    fn certify(
        &self,
        template: &IssuerTemplate,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, SignerError> {
        let mut params = issuer_params(template)?;
        params.use_authority_key_identifier_extension = true;
        let draft = params.signed_by(key, &self.issuer)?;
        Ok(CertificateDer::from(finish(draft.der(), &self.key)?))
    }

    /// Opens what rested on disk.
    pub fn open(sealed: &SealedIssuer, vault: &Vault) -> Result<Self, SignerError> {
        let certificate = CertificateDer::from(sealed.certificate_der.clone());
        let Read { validity, point, .. } = read(&certificate)?;
        let key = vault.open(&sealed.sealed_key, &point)?;
        Self::of(key, certificate, validity)
    }

    /// Signs what the template says, nothing else.
    pub fn sign_leaf(&self, leaf: &Leaf) -> Result<CertificateDer<'static>, SignerError> {
        let public_key = SubjectPublicKeyInfo::from_der(&leaf.public_key)?;
        let draft = leaf_params(leaf)?.signed_by(&public_key, &self.issuer)?;
        Ok(CertificateDer::from(finish(draft.der(), &self.key)?))
    }

    /// ECDSA P-256 with SHA-256 (ASN.1) over a statement of this CA, such as the deny list.
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.key.sign(statement)
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The name that its certificates carry as their issuer's, DER.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }

    fn of(
        key: Key,
        certificate: CertificateDer<'static>,
        validity: Validity,
    ) -> Result<Self, SignerError> {
        let issuer = Issuer::from_ca_cert_der(&certificate, Unsigned(key.public()))?;
        let subject = read(&certificate)?.subject;
        Ok(Self { issuer, key, certificate, subject, validity })
    }
}

/// A request (PKCS#10, DER) for a certificate as the template says, under a root that is not here,
/// with a new key. Serial and validity are the root's to choose.
pub fn request_issuer(
    template: &IssuerTemplate,
    vault: &Vault,
) -> Result<IssuerRequest, SignerError> {
    let (key, sealed_key) = vault.make()?;
    let mut params = issuer_params(template)?;
    params.serial_number = None;
    let draft = params.serialize_request(&Unsigned(key.public()))?;
    let public_key = key.public().subject_public_key_info();
    Ok(IssuerRequest { csr_der: finish(draft.der(), &key)?, public_key, sealed_key })
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
    params.custom_extensions = template
        .extensions
        .iter()
        .map(|extra| CustomExtension::from_oid_content(&extra.oid, extra.der.clone()))
        .collect();
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

/// The validity of a CA certificate, without its key.
pub fn validity_of(certificate_der: &[u8]) -> Result<Validity, SignerError> {
    read(&CertificateDer::from(certificate_der)).map(|read| read.validity)
}

/// What is read of an issuer's certificate.
struct Read {
    subject: Vec<u8>,
    validity: Validity,
    point: Vec<u8>,
}

fn read(certificate: &CertificateDer<'_>) -> Result<Read, SignerError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| SignerError::Certificate(error.to_string()))?;
    let point = parsed.public_key().subject_public_key.data.to_vec();
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = parsed.validity();
    let validity = Validity {
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
    };
    Ok(Read { subject: parsed.subject().as_raw().to_vec(), validity, point })
}

#[cfg(test)]
mod tests;
