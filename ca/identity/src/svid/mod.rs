//! An X.509-SVID read strictly (X.509-SVID, sections 2 to 4): exactly one SPIFFE ID, usages, key,
//! addresses. Called by `verify` for a peer's leaf and by the sidecar for what the CA has just
//! issued.
//! Never: trust. That the reading succeeded says nothing about who signed it; `verify` does.

// SPDX-License-Identifier: Apache-2.0

#[cfg(test)]
mod tests;

pub use crate::x509::{
    KeyError, Malformed, P256_SIGNATURE_MAX_BYTES, P256_SPKI_BYTES, P256Spki, Serial, SerialError,
};

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::id::{IdError, SpiffeId};
use crate::x509::{parse, validity};

/// Leaf, issuing intermediate, and two more for foreign hierarchies that insert a cross-signed
/// step; each certificate more is one signature more that a stranger may make us check.
pub const MAX_CHAIN_CERTIFICATES: usize = 4;

/// A dual-stack pod has two; a host with every address of its interfaces stays below this.
pub const MAX_SANS: usize = 64;

/// A certificate chain whose leaf is a well-formed SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svid {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
}

/// What a leaf says. Times are Unix seconds, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaf {
    pub id: SpiffeId,
    pub ip_sans: Vec<IpAddr>,
    pub serial: Serial,
    pub not_before: u64,
    pub not_after: u64,
    pub key: P256Spki,
    /// Extended key usage clientAuth: may open TLS connections.
    pub client_auth: bool,
    /// Extended key usage serverAuth: may accept TLS connections.
    pub server_auth: bool,
}

/// Why a chain's leaf is no SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    #[error("the chain has {count} certificates; expected 1 to {MAX_CHAIN_CERTIFICATES}")]
    ChainLength { count: usize },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the leaf has {count} subject alternative names, more than {MAX_SANS}")]
    TooManySans { count: usize },
    #[error("the leaf has no URI SAN; a SPIFFE ID elsewhere (common name, DNS SAN) does not count")]
    NoUri,
    #[error("the leaf has {count} URI SANs; an SVID has exactly one")]
    ManyUris { count: usize },
    #[error("the leaf's URI SAN is no SPIFFE ID: {0}")]
    Id(#[from] IdError),
    #[error("the leaf's URI SAN is no ASCII text")]
    IdNotText,
    #[error("the leaf says CA:TRUE; a CA's certificate is no SVID")]
    Ca,
    #[error("the leaf's key usage {0}")]
    KeyUsage(&'static str),
    #[error("the leaf has no extended key usage; expected clientAuth, serverAuth or both")]
    NoExtendedKeyUsage,
    #[error("the leaf's key is not ECDSA P-256")]
    Key,
}

impl Svid {
    /// Reads the leaf (the first certificate); the others are kept as they are.
    pub fn from_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        if chain.len() > MAX_CHAIN_CERTIFICATES {
            return Err(SvidError::ChainLength { count: chain.len() });
        }
        let first = chain.first().ok_or(SvidError::ChainLength { count: 0 })?;
        let leaf = Leaf::read(first)?;
        for issuer in &chain[1..] {
            parse(issuer)?;
        }
        Ok(Self { leaf, chain })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    pub fn ip_sans(&self) -> &[IpAddr] {
        &self.leaf.ip_sans
    }

    pub fn serial(&self) -> &Serial {
        &self.leaf.serial
    }

    /// Unix seconds, itself included.
    pub fn not_before(&self) -> u64 {
        self.leaf.not_before
    }

    /// Unix seconds, itself included.
    pub fn not_after(&self) -> u64 {
        self.leaf.not_after
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl Leaf {
    /// Reads one certificate; everything that a stranger may have written into it is bounded.
    pub fn read(der: &[u8]) -> Result<Self, SvidError> {
        let certificate = parse(der)?;
        let sans = read_sans(&certificate)?;
        check_not_ca(&certificate)?;
        let (client_auth, server_auth) = read_usages(&certificate)?;
        let times = validity(&certificate)?;
        Ok(Self {
            id: sans.id,
            ip_sans: sans.addresses,
            serial: Serial::from_der_integer(certificate.raw_serial())?,
            not_before: times.not_before,
            not_after: times.not_after,
            key: P256Spki::try_from(certificate.public_key().raw).map_err(|_| SvidError::Key)?,
            client_auth,
            server_auth,
        })
    }
}

struct Sans {
    id: SpiffeId,
    addresses: Vec<IpAddr>,
}

/// Counts every URI SAN, those too that are not even text: webpki's iterator passes over them, and
/// whoever reads the certificate elsewhere might not.
fn read_sans(certificate: &X509Certificate<'_>) -> Result<Sans, SvidError> {
    const SAN: &str = "subject alternative name";
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) => return Err(SvidError::NoUri),
        Err(_) => return Err(Malformed::Extension(SAN).into()),
    };
    if names.len() > MAX_SANS {
        return Err(SvidError::TooManySans { count: names.len() });
    }
    let mut uris = Vec::new();
    let mut addresses = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(text) => uris.push(Some(*text)),
            GeneralName::Invalid(tag, _) if tag.0 == 6 => uris.push(None),
            GeneralName::Invalid(..) => return Err(Malformed::Extension(SAN).into()),
            GeneralName::IPAddress(bytes) => {
                addresses.push(read_address(bytes).ok_or(Malformed::Extension(SAN))?);
            }
            // SPIFFE allows other names beside the URI; none of them means anything here.
            _ => {}
        }
    }
    match uris.as_slice() {
        [] => Err(SvidError::NoUri),
        [None] => Err(SvidError::IdNotText),
        [Some(text)] => Ok(Sans { id: SpiffeId::parse(text)?, addresses }),
        more => Err(SvidError::ManyUris { count: more.len() }),
    }
}

/// IPv4-mapped IPv6 addresses become IPv4: one spelling of each address.
fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(v6).to_canonical())
}

fn check_not_ca(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => Err(SvidError::Ca),
        Ok(_) => Ok(()),
        Err(_) => Err(Malformed::Extension("basic constraints").into()),
    }
}

/// Key usage as X.509-SVID, section 4.3 demands; then (clientAuth, serverAuth).
fn read_usages(certificate: &X509Certificate<'_>) -> Result<(bool, bool), SvidError> {
    let usage = certificate
        .key_usage()
        .map_err(|_| Malformed::Extension("key usage"))?
        .ok_or(SvidError::KeyUsage("is absent; expected digitalSignature"))?
        .value;
    if !usage.digital_signature() {
        return Err(SvidError::KeyUsage("lacks digitalSignature"));
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::KeyUsage("has keyCertSign or cRLSign, which a leaf must not have"));
    }
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| Malformed::Extension("extended key usage"))?
        .ok_or(SvidError::NoExtendedKeyUsage)?
        .value;
    // anyExtendedKeyUsage counts for neither: a mesh leaf says what it is for.
    Ok((extended.client_auth, extended.server_auth))
}
