//! Attestor: a machine's own X.509 certificate, as fleets of virtual machines have it (from a cloud,
//! a TPM enrolment, a corporate CA), and a signature by its key over this very request.
//!
//! Never: takes a certificate without the proof of its key, one that is not for clients, or the
//! certificate that the TLS connection shows (that one is an SVID).

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::issuance::{HostProof, IssueRequest, MachineProof};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::aws_lc_rs::{
    ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY, RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{AttestError, Attested, BoundTo, Caller, Evidence, Lasts, Selector};
use crate::clock::UnixSeconds;
use crate::journal::Hex;

/// The word in logs and metrics.
pub const ATTESTOR: &str = "machine";

/// Most CAs in the file: those of a few sites, in rotation.
const MAX_CAS: usize = 64;
/// Most names of one certificate that become selectors: what public CAs allow.
const MAX_NAMES: usize = 100;
/// What certificates may be signed with.
static CHAIN: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P256_SHA256,
    ECDSA_P384_SHA384,
    ED25519,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// What a machine's key may sign with: the schemes of TLS 1.3 (RFC 8446, section 4.2.3).
static SCHEMES: &[(u16, &dyn SignatureVerificationAlgorithm)] = &[
    (0x0403, ECDSA_P256_SHA256),
    (0x0503, ECDSA_P384_SHA384),
    (0x0804, RSA_PSS_2048_8192_SHA256_LEGACY_KEY),
    (0x0805, RSA_PSS_2048_8192_SHA384_LEGACY_KEY),
    (0x0806, RSA_PSS_2048_8192_SHA512_LEGACY_KEY),
    (0x0807, ED25519),
];

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("--machine-ca {}: {why}; expected 1 to {MAX_CAS} CA certificates in PEM", path.display())]
    Cas { path: PathBuf, why: String },
}

/// The CAs whose machines may attest.
pub struct Machines {
    cas: Vec<CertificateDer<'static>>,
}

impl Machines {
    /// `pem` is what the file at `path` holds.
    pub fn new(path: &Path, pem: &[u8]) -> Result<Self, MachineError> {
        let wrong = |why: String| MachineError::Cas { path: path.to_owned(), why };
        let cas: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let cas = cas.map_err(|error| wrong(error.to_string()))?;
        if !(1..=MAX_CAS).contains(&cas.len()) {
            return Err(wrong(format!("it holds {}", cas.len())));
        }
        for ca in &cas {
            webpki::anchor_from_trusted_cert(ca).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Self { cas })
    }

    pub(super) fn attest(
        &self,
        proof: &MachineProof,
        request: &IssueRequest,
        caller: &Caller,
        now: UnixSeconds,
    ) -> Result<Attested, AttestError> {
        let (leaf, issuers) = proof.chain.split_first().expect("a proof holds a certificate");
        let malformed = |why: webpki::Error| Evidence::MachineMalformed(format!("{why}"));
        let certificate = EndEntityCert::try_from(leaf).map_err(malformed)?;
        let issuer = self.issuer(&certificate, leaf, issuers, now)?;
        let (_, algorithm) = SCHEMES
            .iter()
            .find(|(scheme, _)| *scheme == proof.scheme)
            .ok_or(Evidence::MachineSignature { scheme: proof.scheme })?;
        let bytes =
            HostProof::machine_bytes(&caller.exporter, request.csr.der(), &request.request_key);
        certificate
            .verify_signature(*algorithm, &bytes, &proof.signature)
            .map_err(|_| Evidence::MachineSignature { scheme: proof.scheme })?;
        Ok(read(leaf, &issuer)?)
    }

    /// The certificate that issued this one, once the whole path is good.
    fn issuer(
        &self,
        certificate: &EndEntityCert<'_>,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Evidence> {
        let anchors: Vec<TrustAnchor<'_>> =
            self.cas.iter().filter_map(|ca| webpki::anchor_from_trusted_cert(ca).ok()).collect();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
        // Of issuers only if they have one; of the machine itself it is demanded in `read`.
        let usage = KeyUsage::client_auth();
        let path = certificate.verify_for_usage(CHAIN, &anchors, issuers, at, usage, None, None);
        let path = path.map_err(|error| in_words(&error, leaf, now))?;
        // webpki takes an anchor to be timeless.
        let anchor = self.cas.iter().find(|ca| {
            webpki::anchor_from_trusted_cert(ca).is_ok_and(|anchor| anchor == *path.anchor())
        });
        let anchor = anchor.expect("the anchor that was reached is one of those given");
        let (not_before, not_after) = validity(anchor)?;
        if !(not_before..=not_after).contains(&now) {
            return Err(Evidence::MachineUntrusted(format!(
                "its CA in the file is valid from {not_before} to {not_after} only"
            )));
        }
        let nearest =
            path.intermediate_certificates().next().map(|issuer| issuer.der().into_owned());
        Ok(nearest.unwrap_or_else(|| anchor.clone()))
    }
}

fn in_words(error: &webpki::Error, leaf: &CertificateDer<'_>, now: UnixSeconds) -> Evidence {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::CertNotValidYet { .. } => match validity(leaf) {
            Ok((not_before, not_after)) if !(not_before..=not_after).contains(&now) => {
                Evidence::MachineExpired { now, not_before, not_after }
            }
            Ok(_) => Evidence::MachineUntrusted("an issuer of it is not valid now".to_owned()),
            Err(evidence) => evidence,
        },
        E::RequiredEkuNotFoundContext(_) => Evidence::MachineUsage,
        E::CaUsedAsEndEntity => Evidence::MachineUsage,
        other => Evidence::MachineUntrusted(format!("{other}")),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Evidence> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Evidence::MachineMalformed("it is no DER certificate".to_owned())),
    }
}

fn validity(der: &[u8]) -> Result<(u64, u64), Evidence> {
    let certificate = parse(der)?;
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let validity = certificate.validity();
    Ok((seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp())))
}

/// What the certificate says, as selectors.
fn read(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> Result<Attested, Evidence> {
    let certificate = parse(leaf)?;
    // A certificate without any stated use is for nothing here.
    let usage = certificate.extended_key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err(Evidence::MachineUsage);
    }
    let mut selectors = vec![Selector::found("x509:issuer-hash:", &hash(issuer))];
    let mut names: Vec<&str> =
        certificate.subject().iter_common_name().filter_map(|cn| cn.as_str().ok()).collect();
    // Two common names: which one would an entry mean?
    if let (Some(one), true) = (names.pop(), names.is_empty()) {
        selectors.push(Selector::found("x509:subject:cn:", one));
    }
    let sans = certificate.subject_alternative_name().map_err(|_| {
        Evidence::MachineMalformed("its alternative names cannot be read".to_owned())
    })?;
    let sans = sans.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    if sans.len() > MAX_NAMES {
        return Err(Evidence::MachineMalformed(format!("it has more than {MAX_NAMES} names")));
    }
    let mut addresses = Vec::new();
    for san in sans {
        match san {
            // DNS names are the same in any case; selectors are compared whole.
            GeneralName::DNSName(name) => {
                selectors.push(Selector::found("x509:san:dns:", &name.to_ascii_lowercase()));
            }
            GeneralName::URI(uri) => selectors.push(Selector::found("x509:san:uri:", uri)),
            GeneralName::IPAddress(bytes) => {
                let Some(address) = address(bytes) else { continue };
                selectors.push(Selector::found("x509:san:ip:", &address.to_string()));
                addresses.push(address);
            }
            _ => {}
        }
    }
    let bound_to = Some(BoundTo { name: key_name(&certificate), lasts: Lasts::WithTheSvid });
    Ok(Attested {
        attestor: ATTESTOR,
        selectors,
        bound_to,
        service_account: None,
        addresses,
        is_remembered: false,
        pod: None,
    })
}

/// A machine is its key: certificates come and go, and two machines may have one name.
fn key_name(certificate: &X509Certificate<'_>) -> Hex {
    let named = [b"machine key\n", certificate.public_key().raw].concat();
    Hex(digest(&SHA256, &named).as_ref().to_vec())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_canonical())
}

/// SHA-256 of a certificate's DER, as `openssl x509 -fingerprint -sha256` shows it without colons.
fn hash(der: &[u8]) -> String {
    let mut text = String::new();
    for byte in digest(&SHA256, der).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
