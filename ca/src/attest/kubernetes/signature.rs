//! Whether the issuer signed a token: header, key by its id, algorithm from our list and of the
//! key's own kind, signature.
//!
//! Never: takes key or algorithm from the token alone, or reads a claim before the signature.

// SPDX-License-Identifier: Apache-2.0

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use super::super::Evidence;
use super::{Claims, Jwks};

/// Longest key id: Kubernetes' are 43 characters (a base64 SHA-256).
const MAX_KID_BYTES: usize = 128;

pub(super) async fn verify(token: &str, keys: &Jwks) -> Result<Claims, Evidence> {
    let header = decode_header(token).map_err(|error| match error.kind() {
        // `none` and whatever else the library has no name for.
        ErrorKind::Json(_) | ErrorKind::InvalidAlgorithmName => {
            Evidence::TokenAlgorithm("something unknown".to_owned())
        }
        _ => Evidence::TokenMalformed("it is no signed JWT of three parts"),
    })?;
    let kid = header.kid.filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID_BYTES);
    let kid = kid.ok_or(Evidence::TokenMalformed("its header names no key"))?;
    if header.crit.is_some() {
        return Err(Evidence::TokenMalformed("its header has critical parts"));
    }
    let key = keys.key(&kid).await?;
    let refused = || Evidence::TokenAlgorithm(format!("{:?}", header.alg));
    if !allowed(&key).contains(&header.alg) {
        return Err(refused());
    }
    let decoding = DecodingKey::from_jwk(&key).map_err(|_| refused())?;
    let mut validation = Validation::new(header.alg);
    // The claims are judged here, by this CA's clock and words.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let decoded = decode::<Claims>(token, &decoding, &validation);
    decoded.map(|decoded| decoded.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Evidence::TokenSignature,
        ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::Base64(_) => {
            Evidence::TokenMalformed("its claims are not those of a service account")
        }
        ErrorKind::InvalidAlgorithm => refused(),
        _ => Evidence::TokenSignature,
    })
}

/// The algorithms that a key may verify: never a shared secret, and only its own if it names one.
fn allowed(key: &Jwk) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    if key.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return Vec::new();
    }
    let of_kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => vec![ES256],
            EllipticCurve::P384 => vec![ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![EdDSA],
        _ => Vec::new(),
    };
    let named = |algorithm: &Algorithm| {
        key.common.key_algorithm.as_ref().is_none_or(|named| names(named, *algorithm))
    };
    of_kind.into_iter().filter(named).collect()
}

fn names(named: &KeyAlgorithm, algorithm: Algorithm) -> bool {
    format!("{named:?}") == format!("{algorithm:?}")
}
