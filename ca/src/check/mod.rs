//! Reads a signed certificate back and compares it with its template, with another parser than the
//! one that wrote it. `authority` and `rotation` call this before a certificate leaves the process:
//! a bug in the writer stops here. Whether a key signs as it should, its room asks (`signer::key`).
//!
//! Never: repairs, or tolerates an extension that the template does not ask for.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey, VerificationAlgorithm,
};
use myelin_identity::svid::P256Spki;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::template::{IssuerTemplate, Leaf, Serial, Validity};

mod intermediate;

pub use intermediate::{Requested, Unfit, imported, intermediate_key, request};

/// An uncompressed point: 0x04 and two coordinates.
const P384_POINT_BYTES: usize = 97;

/// What of the certificate differs from its template. Always our own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signed certificate's {0} is not what its template says; it was not handed out, please report this"
)]
pub struct Mismatch(pub &'static str);

/// Compares a signed leaf with its template, and the issuer that it names with the name (DER) of its
/// issuer.
pub fn leaf(der: &[u8], template: &Leaf, issuer: &[u8]) -> Result<(), Mismatch> {
    let certificate = parse(der)?;
    same("issuer", certificate.issuer().as_raw() == issuer)?;
    frame(&certificate, &template.serial, template.validity)?;
    same("subject", certificate.subject().iter().count() == 0)?;
    same("public key", certificate.public_key().raw == template.public_key)?;
    let mut names = Names::default();
    let mut extensions = Seen::default();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                extensions.names += 1;
                same("subject alternative name's criticality", extension.critical)?;
                names.read(&san.general_names)?;
            }
            ParsedExtension::BasicConstraints(basic) => {
                extensions.basic += 1;
                same("basic constraints", !basic.ca && basic.path_len_constraint.is_none())?;
            }
            ParsedExtension::KeyUsage(usage) => {
                extensions.usage += 1;
                // Bit 0 is digitalSignature.
                same("key usage", usage.flags == 1)?;
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                extensions.extended += 1;
                let extra = usage.any
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping;
                let extra = extra || usage.ocsp_signing || !usage.other.is_empty();
                same("extended key usage", usage.server_auth && usage.client_auth && !extra)?;
            }
            ParsedExtension::AuthorityKeyIdentifier(_) => extensions.above += 1,
            ParsedExtension::SubjectKeyIdentifier(_) => extensions.own += 1,
            _ => return Err(Mismatch("list of extensions")),
        }
    }
    same("list of extensions", extensions == Seen::ONE_OF_EACH)?;
    same("SPIFFE ID", names.uris == [template.spiffe_id.as_str()])?;
    same("addresses", names.addresses == template.addresses)?;
    same("names", names.dns == template.names)
}

/// Compares a signed CA certificate with its template, and its signature with the key above it.
pub fn issuer(der: &[u8], template: &IssuerTemplate, above_der: &[u8]) -> Result<(), Mismatch> {
    let certificate = parse(der)?;
    signed_by(&certificate, above_der)?;
    frame(&certificate, &template.serial, template.validity)?;
    let basic =
        certificate.basic_constraints().ok().flatten().ok_or(Mismatch("basic constraints"))?;
    let path_length = template.path_length.map(u32::from);
    same("basic constraints", basic.value.ca && basic.value.path_len_constraint == path_length)?;
    same("basic constraints' criticality", basic.critical)?;
    let usage = certificate.key_usage().ok().flatten().ok_or(Mismatch("key usage"))?;
    // Bits 5 and 6: keyCertSign and cRLSign.
    same("key usage", usage.value.flags == 0b110_0000)?;
    same("name constraints", certificate.name_constraints().is_ok_and(|found| found.is_none()))?;
    issuer_extensions(&certificate, template)
}

/// The trust domain's name, what the template adds, and nothing that it does not.
fn issuer_extensions(
    certificate: &X509Certificate<'_>,
    template: &IssuerTemplate,
) -> Result<(), Mismatch> {
    let mut names = Names::default();
    let mut extra = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => names.read(&san.general_names)?,
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::AuthorityKeyIdentifier(_)
            | ParsedExtension::SubjectKeyIdentifier(_) => {}
            _ if extension.critical => return Err(Mismatch("list of extensions")),
            _ => extra.push((extension.oid.to_id_string(), extension.value)),
        }
    }
    let expected = template.extensions.iter().map(|extra| (dotted(&extra.oid), &*extra.der));
    same("list of extensions", extra.into_iter().eq(expected))?;
    same("trust domain", names.uris == [format!("spiffe://{}", template.trust_domain)])?;
    same("names", names.dns.is_empty() && names.addresses.is_empty())
}

fn dotted(oid: &[u64]) -> String {
    oid.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// Which of `roots` has signed this CA certificate.
pub fn root_of<'a>(
    issuer_der: &[u8],
    roots: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Result<&'a CertificateDer<'static>, Mismatch> {
    let certificate = parse(issuer_der)?;
    let mut roots = roots.into_iter();
    roots.find(|root| signed_by(&certificate, root).is_ok()).ok_or(Mismatch("root"))
}

#[derive(Default, PartialEq, Eq)]
struct Seen {
    names: u8,
    basic: u8,
    usage: u8,
    extended: u8,
    above: u8,
    own: u8,
}

impl Seen {
    const ONE_OF_EACH: Self = Self { names: 1, basic: 1, usage: 1, extended: 1, above: 1, own: 1 };
}

#[derive(Default)]
struct Names<'a> {
    uris: Vec<&'a str>,
    addresses: Vec<IpAddr>,
    dns: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn read(&mut self, names: &[GeneralName<'a>]) -> Result<(), Mismatch> {
        for name in names {
            match name {
                GeneralName::URI(uri) => self.uris.push(uri),
                GeneralName::DNSName(dns) => self.dns.push(dns),
                GeneralName::IPAddress(octets) => self.addresses.push(address(octets)?),
                _ => return Err(Mismatch("kinds of names")),
            }
        }
        Ok(())
    }
}

fn address(octets: &[u8]) -> Result<IpAddr, Mismatch> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| v6()).map_err(|_| Mismatch("addresses"))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Mismatch> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Mismatch("encoding")),
    }
}

/// Version, serial, validity and algorithm: what leaf and issuer have in common.
fn frame(
    certificate: &X509Certificate<'_>,
    serial: &Serial,
    validity: Validity,
) -> Result<(), Mismatch> {
    same("version", certificate.version() == x509_parser::x509::X509Version::V3)?;
    same("serial", certificate.raw_serial() == serial.as_bytes())?;
    let found = certificate.validity();
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
    same("start", seconds(found.not_before) == Some(validity.not_before))?;
    same("end", seconds(found.not_after) == Some(validity.not_after))?;
    same("curve", P256Spki::try_from(certificate.public_key().raw).is_ok())
}

fn signed_by(certificate: &X509Certificate<'_>, issuer_der: &[u8]) -> Result<(), Mismatch> {
    let issuer = parse(issuer_der)?;
    same("issuer", certificate.issuer().as_raw() == issuer.subject().as_raw())?;
    let point = &issuer.public_key().subject_public_key.data;
    // Our own keys are P-256; a root that is not ours may be P-384.
    let algorithm: &dyn VerificationAlgorithm = if point.len() == P384_POINT_BYTES {
        &ECDSA_P384_SHA384_ASN1
    } else {
        &ECDSA_P256_SHA256_ASN1
    };
    let key = UnparsedPublicKey::new(algorithm, point);
    let signed =
        key.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    same("signature", signed.is_ok())
}

fn same(what: &'static str, holds: bool) -> Result<(), Mismatch> {
    if holds { Ok(()) } else { Err(Mismatch(what)) }
}

#[cfg(test)]
mod tests;
