//! A trust bundle on paper: PEM, and the SPIFFE trust bundle format (a JWKS; SPIFFE Trust Domain
//! and Bundle, section 4). Called through `TrustBundle`'s methods by the CA's ops port and by
//! configuration.
//! Never: keys for anything but X.509-SVIDs; JWT entries of other issuers are passed over.

// SPDX-License-Identifier: Apache-2.0

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde::{Deserialize, Serialize};

use super::{BundleError, MAX_CERTIFICATE_BYTES, MAX_ROOTS, TrustBundle};
use crate::id::TrustDomain;
use crate::log::LogKey;
use crate::pem;
use crate::x509::parse;

/// The most that [`MAX_ROOTS`] certificates take in base64, with as much again for headers, JWT
/// keys of other issuers and indentation.
pub const MAX_FORM_BYTES: usize = MAX_ROOTS * MAX_CERTIFICATE_BYTES * 3;

/// The SPIFFE specification asks for at least five minutes where the publisher has no better idea.
const REFRESH_HINT_SECONDS: u64 = 300;

/// What a SPIFFE trust bundle document says: the bundle, its generation being `spiffe_sequence` (0
/// where there is none), and how often to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeDocument {
    pub bundle: TrustBundle,
    pub refresh_hint_seconds: Option<u64>,
}

/// A line before a root's block with the log that the bundle states for it; other readers of PEM pass
/// it over.
const LOG_LINE: &str = "myelin-root-log: ";

/// SEC 1, section 2.3.3.
const UNCOMPRESSED: u8 = 4;

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
    #[serde(default)]
    spiffe_sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    #[serde(default, rename = "use")]
    usage: String,
    #[serde(default)]
    kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

impl TrustBundle {
    /// One CERTIFICATE block a root, with its log on a line before it if the bundle states one. PEM
    /// says neither trust domain nor generation.
    pub fn to_pem(&self) -> String {
        let mut out = String::new();
        for (root, id) in self.roots().zip(self.root_ids()) {
            if let Some(log) = self.stated_log(&id) {
                out.push_str(&format!("{LOG_LINE}{log}\n"));
            }
            out.push_str(&pem::encode("CERTIFICATE", root));
        }
        out
    }

    /// Other text between the blocks is passed over; a block of another kind (a key!) is an error.
    pub fn from_pem(
        trust_domain: TrustDomain,
        generation: u64,
        pem: &str,
    ) -> Result<Self, BundleError> {
        check_size(pem)?;
        let mut roots = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            match block {
                Ok((SectionKind::Certificate, der)) => roots.push(CertificateDer::from(der)),
                Ok(_) => {
                    return Err(BundleError::Pem { why: "a block of another kind is there" });
                }
                Err(_) => {
                    return Err(BundleError::Pem { why: "a block is damaged" });
                }
            }
        }
        let bundle = Self::new(trust_domain, generation, roots)?;
        let stated: Vec<_> = bundle.root_ids().zip(stated_in(pem)?).collect();
        bundle.with_stated(stated.into_iter().filter_map(|(root, log)| Some((root, log?))))
    }

    /// The SPIFFE trust bundle format; the generation is its `spiffe_sequence`. Stated logs have no
    /// place in it.
    pub fn to_spiffe_json(&self) -> String {
        self.to_spiffe_json_hinting(REFRESH_HINT_SECONDS)
    }

    /// The same, asking its readers to come again after so many seconds.
    pub fn to_spiffe_json_hinting(&self, refresh_hint_seconds: u64) -> String {
        let keys = self.roots().map(|root| jwk(root)).collect();
        let set = Jwks {
            keys,
            spiffe_sequence: self.generation(),
            spiffe_refresh_hint: Some(refresh_hint_seconds),
        };
        serde_json::to_string_pretty(&set).expect("strings and numbers always serialise")
    }

    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &str) -> Result<Self, BundleError> {
        SpiffeDocument::read(trust_domain, json).map(|document| document.bundle)
    }
}

impl SpiffeDocument {
    /// Keys of other uses are passed over; one damaged root refuses the whole.
    pub fn read(trust_domain: TrustDomain, json: &str) -> Result<Self, BundleError> {
        check_size(json)?;
        let wrong = |why: &str| BundleError::Json { why: why.to_owned() };
        let set: Jwks = serde_json::from_str(json)
            .map_err(|error| BundleError::Json { why: error.to_string() })?;
        let mut roots = Vec::new();
        for key in set.keys.iter().filter(|key| key.usage == "x509-svid") {
            let [one] = key.x5c.as_slice() else {
                return Err(wrong("an x509-svid key must have exactly one certificate in x5c"));
            };
            let der = BASE64_STANDARD
                .decode(one)
                .map_err(|_| wrong("an x5c entry is not standard base64"))?;
            let said = jwk(&der);
            if (&key.kty, &key.crv, &key.x, &key.y) != (&said.kty, &said.crv, &said.x, &said.y)
                && said.x.is_some()
            {
                return Err(wrong("a key's kty, crv, x, y are not those of its certificate"));
            }
            roots.push(CertificateDer::from(der));
        }
        let bundle = TrustBundle::new(trust_domain, set.spiffe_sequence, roots)?;
        Ok(Self { bundle, refresh_hint_seconds: set.spiffe_refresh_hint })
    }
}

/// The log that stands before each block, if one does.
fn stated_in(pem: &str) -> Result<Vec<Option<LogKey>>, BundleError> {
    let (mut stated, mut log) = (Vec::new(), None);
    for line in pem.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix(LOG_LINE) {
            let why = "a root's log cannot be read; expected <name>+<8 hex digits>+<base64>";
            log = Some(text.parse().map_err(|_| BundleError::Pem { why })?);
        } else if line.starts_with("-----BEGIN ") {
            stated.push(log.take());
        }
    }
    Ok(stated)
}

fn check_size(text: &str) -> Result<(), BundleError> {
    if text.len() > MAX_FORM_BYTES {
        return Err(BundleError::TooBig { bytes: text.len(), limit: MAX_FORM_BYTES });
    }
    Ok(())
}

/// The JWK of a certificate with an uncompressed P-256 or P-384 point (RFC 7518, section 6.2.1).
fn jwk(der: &[u8]) -> Jwk {
    let point = parse(der)
        .ok()
        .map(|certificate| certificate.public_key().subject_public_key.data.to_vec())
        .filter(|point| point.first() == Some(&UNCOMPRESSED));
    let curve = match point.as_ref().map(Vec::len) {
        Some(65) => Some("P-256"),
        Some(97) => Some("P-384"),
        _ => None,
    };
    let coordinates = point.as_deref().filter(|_| curve.is_some()).map(|point| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y))
    });
    let (x, y) = coordinates.unzip();
    Jwk {
        usage: "x509-svid".to_owned(),
        kty: "EC".to_owned(),
        crv: curve.map(str::to_owned),
        x,
        y,
        x5c: vec![BASE64_STANDARD.encode(der)],
    }
}
