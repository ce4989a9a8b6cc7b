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
use crate::x509::{P256Spki, parse};

/// The most that [`MAX_ROOTS`] certificates take in base64, with as much again for headers, JWT
/// keys of other issuers and indentation.
const MAX_FORM_BYTES: usize = MAX_ROOTS * MAX_CERTIFICATE_BYTES * 3;

/// The RFC 7468 line length.
const PEM_LINE_CHARACTERS: usize = 64;

/// The SPIFFE specification asks for at least five minutes where the publisher has no better idea.
const REFRESH_HINT_SECONDS: u64 = 300;

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
    /// One CERTIFICATE block a root. PEM says neither trust domain nor generation.
    pub fn to_pem(&self) -> String {
        let mut out = String::new();
        for root in self.roots() {
            out.push_str("-----BEGIN CERTIFICATE-----\n");
            let text = BASE64_STANDARD.encode(root);
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (line, after) = rest.split_at(rest.len().min(PEM_LINE_CHARACTERS));
                out.push_str(line);
                out.push('\n');
                rest = after;
            }
            out.push_str("-----END CERTIFICATE-----\n");
        }
        out
    }

    /// Text between the blocks is passed over; a block of another kind (a key!) is an error.
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
        Self::new(trust_domain, generation, roots)
    }

    /// The SPIFFE trust bundle format; the generation is its `spiffe_sequence`.
    pub fn to_spiffe_json(&self) -> String {
        let keys = self.roots().map(|root| jwk(root)).collect();
        let set = Jwks {
            keys,
            spiffe_sequence: self.generation(),
            spiffe_refresh_hint: Some(REFRESH_HINT_SECONDS),
        };
        serde_json::to_string_pretty(&set).expect("strings and numbers always serialise")
    }

    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &str) -> Result<Self, BundleError> {
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
        Self::new(trust_domain, set.spiffe_sequence, roots)
    }
}

fn check_size(text: &str) -> Result<(), BundleError> {
    if text.len() > MAX_FORM_BYTES {
        return Err(BundleError::TooBig { bytes: text.len(), limit: MAX_FORM_BYTES });
    }
    Ok(())
}

/// The JWK of a certificate. The coordinates of a P-384 root are left out: `x5c` holds them.
fn jwk(der: &[u8]) -> Jwk {
    let spki = parse(der)
        .ok()
        .and_then(|certificate| P256Spki::try_from(certificate.public_key().raw).ok());
    let coordinate = |at: std::ops::Range<usize>| {
        spki.map(|spki| BASE64_URL_SAFE_NO_PAD.encode(&spki.as_bytes()[at]))
    };
    Jwk {
        usage: "x509-svid".to_owned(),
        kty: "EC".to_owned(),
        crv: spki.map(|_| "P-256".to_owned()),
        x: coordinate(27..59),
        y: coordinate(59..91),
        x5c: vec![BASE64_STANDARD.encode(der)],
    }
}
