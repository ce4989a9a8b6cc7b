//! Intermediates that cross between two machines: the request that an offline root is asked to sign,
//! and the certificate that comes back, perhaps from a CA of another maker. Both are read whole
//! before anything is believed.
//!
//! Never: signs or stores, or takes from a request more than its key and the extensions that it
//! shows.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::{CaFault, TrustBundle};
use myelin_identity::issuance::{Csr, IssuanceError};
use myelin_identity::svid::P256Spki;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;

use crate::clock::UnixSeconds;
use crate::template::{Extension, Validity};

/// An imported intermediate must be good for longer than one SVID lives, or it could not issue one.
const LEAST_LEFT_SECONDS: u64 = 24 * 3600;
/// Extensions of RFC 5280 (id-ce, id-pe): each has a meaning to verifiers. None but the four below
/// belongs into an intermediate of this CA; what lies outside these arcs means nothing to strangers.
const STANDARD_ARCS: [&[u64]; 2] = [&[2, 5, 29], &[1, 3, 6, 1, 5, 5, 7, 1]];
/// Bits 5 and 6: keyCertSign and cRLSign.
const CA_USAGE: u16 = 0b110_0000;
const KEY_CERT_SIGN: u16 = 0b10_0000;

/// What a request for an intermediate asks for, once it is seen to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    pub public_key: P256Spki,
    pub extensions: Vec<Extension>,
}

/// Why a request is none for an intermediate of this trust domain, or a certificate is none that
/// this CA can issue with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it cannot be read: {0}")]
    Malformed(String),
    #[error("its signature is not by its own key; make it anew with: myelin-ca issuer request")]
    NotPossessed,
    #[error("its key is {0}, expected ECDSA P-256")]
    Key(String),
    #[error("it is for a leaf, not for a CA")]
    Leaf,
    #[error("its path length is {}, expected 0: no CA may stand below it", .0.map_or_else(|| "not limited".to_owned(), |found| found.to_string()))]
    PathLength(Option<u32>),
    #[error("its key usage is not that of a CA: expected keyCertSign and at most cRLSign")]
    Usage,
    #[error("its name is {}, expected spiffe://{expected} as the only subject alternative name", if found.is_empty() { "missing" } else { found.as_str() })]
    TrustDomain { found: String, expected: String },
    #[error("it has the extension {0}, which does not belong into an intermediate of this CA")]
    Extension(String),
    #[error("its extensions are not those that were asked for; sign the request as it is")]
    OtherExtensions,
    #[error("it was not signed by a root that this CA knows (its bundle is {bundle}): {fault}")]
    ForeignRoot { bundle: String, fault: CaFault },
    #[error("its root allows no CA below it (path length 0)")]
    RootPathLength,
    #[error("it ended at {not_after}, and now it is {now} (Unix seconds)")]
    Expired { not_after: UnixSeconds, now: UnixSeconds },
    #[error("it ends in {left} s, expected at least {LEAST_LEFT_SECONDS} s")]
    TooShort { left: u64 },
    #[error("it ends at {not_after}, after its root (at {root}, Unix seconds)")]
    OutlivesRoot { not_after: UnixSeconds, root: UnixSeconds },
}

/// Reads a request strictly: a CA of this trust domain with path length 0, and nothing besides but
/// extensions that mean nothing to strangers.
pub fn request(der: &[u8], trust_domain: &str) -> Result<Requested, Unfit> {
    let csr = Csr::parse(der.to_vec()).map_err(|error| match error {
        IssuanceError::CsrNotPossessed => Unfit::NotPossessed,
        IssuanceError::Key { .. } => Unfit::Key(key_of_request(der)),
        other => Unfit::Malformed(other.to_string()),
    })?;
    let (_, parsed) = X509CertificationRequest::from_der(der)
        .map_err(|error| Unfit::Malformed(error.to_string()))?;
    let attributes = parsed.certification_request_info.iter_attributes();
    let mut asked = Asked::default();
    for attribute in attributes {
        if let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() {
            requested.extensions.iter().try_for_each(|extension| asked.read(extension))?;
        }
    }
    let extensions = asked.judge(trust_domain)?;
    Ok(Requested { public_key: *csr.key(), extensions })
}

/// Judges an intermediate that came back for a request of ours: the same key (the caller found the
/// request by it), the extensions that were asked for, directly below a root of the bundle.
pub fn imported(
    der: &[u8],
    requested: &Requested,
    bundle: &TrustBundle,
    now: UnixSeconds,
) -> Result<Validity, Unfit> {
    let certificate = certificate(der)?;
    let mut says = Asked::default();
    certificate.extensions().iter().try_for_each(|extension| says.read(extension))?;
    let extensions = says.judge(bundle.trust_domain().as_str())?;
    if extensions != requested.extensions {
        return Err(Unfit::OtherExtensions);
    }
    let root = bundle
        .root_above(der)
        .map_err(|fault| Unfit::ForeignRoot { bundle: bundle.hash().to_string(), fault })?;
    if root.path_length == Some(0) {
        return Err(Unfit::RootPathLength);
    }
    let validity = validity(&certificate)?;
    let not_after = validity.not_after;
    if not_after <= now {
        return Err(Unfit::Expired { not_after, now });
    }
    let left = not_after - now.max(validity.not_before);
    if left < LEAST_LEFT_SECONDS {
        return Err(Unfit::TooShort { left });
    }
    if not_after > root.not_after {
        return Err(Unfit::OutlivesRoot { not_after, root: root.not_after });
    }
    Ok(validity)
}

/// The key of a certificate that claims to be an intermediate of ours.
pub fn intermediate_key(der: &[u8]) -> Result<P256Spki, Unfit> {
    let certificate = certificate(der)?;
    let key = certificate.public_key();
    P256Spki::try_from(key.raw).map_err(|_| Unfit::Key(describe(key)))
}

#[derive(Default)]
struct Asked {
    /// Whether it says CA, and with which path length.
    ca: Option<Option<u32>>,
    usage: u16,
    names: Vec<String>,
    extra: Vec<Extension>,
}

impl Asked {
    fn read(&mut self, extension: &X509Extension<'_>) -> Result<(), Unfit> {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(basic) if basic.ca => {
                self.ca = Some(basic.path_len_constraint);
            }
            ParsedExtension::BasicConstraints(_) => {}
            ParsedExtension::KeyUsage(usage) => self.usage = usage.flags,
            ParsedExtension::SubjectAlternativeName(san) => {
                self.names.extend(san.general_names.iter().map(|name| match name {
                    GeneralName::URI(uri) => (*uri).to_owned(),
                    other => format!("{other:?}"),
                }));
            }
            ParsedExtension::AuthorityKeyIdentifier(_)
            | ParsedExtension::SubjectKeyIdentifier(_) => {}
            _ => {
                let name = extension.oid.to_id_string();
                let oid: Vec<u64> = extension
                    .oid
                    .iter()
                    .map(Iterator::collect)
                    .ok_or_else(|| Unfit::Extension(name.clone()))?;
                if extension.critical || STANDARD_ARCS.iter().any(|arc| oid.starts_with(arc)) {
                    return Err(Unfit::Extension(name));
                }
                self.extra.push(Extension { oid, der: extension.value.to_vec() });
            }
        }
        Ok(())
    }

    fn judge(self, trust_domain: &str) -> Result<Vec<Extension>, Unfit> {
        match self.ca {
            None => return Err(Unfit::Leaf),
            Some(Some(0)) => {}
            Some(found) => return Err(Unfit::PathLength(found)),
        }
        if self.usage & KEY_CERT_SIGN == 0 || self.usage & !CA_USAGE != 0 {
            return Err(Unfit::Usage);
        }
        if self.names != [format!("spiffe://{trust_domain}")] {
            let (found, expected) = (self.names.join(", "), trust_domain.to_owned());
            return Err(Unfit::TrustDomain { found, expected });
        }
        Ok(self.extra)
    }
}

fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, Unfit> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Unfit::Malformed("bytes follow the certificate".to_owned())),
        Err(error) => Err(Unfit::Malformed(error.to_string())),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, Unfit> {
    let seen = certificate.validity();
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp());
    match (seconds(seen.not_before), seconds(seen.not_after)) {
        (Ok(not_before), Ok(not_after)) if not_before < not_after => {
            Ok(Validity { not_before, not_after })
        }
        _ => Err(Unfit::Malformed("its validity is empty or before 1970".to_owned())),
    }
}

fn key_of_request(der: &[u8]) -> String {
    match X509CertificationRequest::from_der(der) {
        Ok((_, parsed)) => describe(&parsed.certification_request_info.subject_pki),
        Err(_) => "unreadable".to_owned(),
    }
}

/// What kind of key this is, for whoever made one of the wrong kind.
fn describe(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> String {
    use x509_parser::public_key::PublicKey;
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA of {} bits", rsa.key_size()),
        Ok(PublicKey::EC(point)) => format!("an elliptic curve point of {} bits", point.key_size()),
        _ => format!("of algorithm {}", key.algorithm.algorithm.to_id_string()),
    }
}
