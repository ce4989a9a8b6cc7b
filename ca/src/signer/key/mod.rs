//! One CA key, wherever it lies. Only this folder has the type: whoever wants a signature asks a
//! `Signer`.
//!
//! Never: shows a private key, or keeps its encoding longer than sealing takes.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use myelin_identity::seal::{self, SealKey};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};

use super::SignerError;
use super::token::{Token, TokenFault};

/// Bound into every sealed key, so that another sealed secret cannot be passed off as one.
const KEY_AAD: &[u8] = b"myelin-ca issuer key v1";
/// How the name of a key in a token begins, in the place of a sealed key; a sealed box begins with
/// its version, 1.
const IN_TOKEN: &[u8] = b"pkcs11:";
const TOKEN_ID_BYTES: usize = 16;
/// An ECDSA signature of a token: r and s.
const RAW_SIGNATURE_BYTES: usize = 64;

/// An ECDSA P-256 key that signs for a CA.
pub(super) enum Key {
    /// In this process's memory, which aws-lc wipes when the key is dropped.
    Memory(EcdsaKeyPair),
    /// In a token, which is asked for each signature.
    Token { token: Token, id: Vec<u8>, point: PublicPoint },
}

impl Key {
    /// A new key in memory, and its sealed form.
    pub(super) fn in_memory(seal_key: &SealKey) -> Result<(Self, Vec<u8>), SignerError> {
        let unmade = |_| SignerError::Making("the operating system gave no random bytes".into());
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(unmade)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(unmade)?;
        let sealed = seal::seal(seal_key, KEY_AAD, pkcs8.as_ref()).map_err(SignerError::Sealing)?;
        Ok((Self::Memory(pair).proven()?, sealed))
    }

    pub(super) fn unseal(sealed: &[u8], seal_key: &SealKey) -> Result<Self, SignerError> {
        let pkcs8 = seal::open(seal_key, KEY_AAD, sealed)
            .map_err(|error| SignerError::Sealed(error.to_string()))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|error| SignerError::Sealed(error.to_string()))?;
        Self::Memory(pair).proven()
    }

    /// A new key in a token, and its name there.
    pub(super) fn in_token(token: &Token) -> Result<(Self, Vec<u8>), SignerError> {
        let mut id = vec![0; TOKEN_ID_BYTES];
        rand::fill(&mut id)
            .map_err(|_| SignerError::Making("the operating system gave no random bytes".into()))?;
        let point = PublicPoint(token.make(id.clone())?);
        let at_rest = [IN_TOKEN, &id].concat();
        Ok((Self::Token { token: token.clone(), id, point }, at_rest))
    }

    /// The key of this name, once it has proved to belong to `point`.
    pub(super) fn of_token(token: &Token, id: &[u8], point: &[u8]) -> Result<Self, SignerError> {
        let point = PublicPoint(point.to_vec());
        Self::Token { token: token.clone(), id: id.to_vec(), point }.proven()
    }

    /// The key, once what it signs was seen to fit its public half.
    fn proven(self) -> Result<Self, SignerError> {
        let proof = self.make_signature(PROOF)?;
        if self.public().verifies(PROOF, &proof) {
            Ok(self)
        } else {
            Err(SignerError::Certificate("it is for another key".to_owned()))
        }
    }

    /// The public half, for whoever writes a certificate or a request for it.
    pub(super) fn public(&self) -> PublicPoint {
        match self {
            Self::Memory(pair) => PublicPoint(pair.public_key().as_ref().to_vec()),
            Self::Token { point, .. } => point.clone(),
        }
    }

    /// ASN.1 ECDSA with SHA-256. What comes from outside of this process is verified before it goes on;
    /// a key in memory was proven once, and whoever receives what it signed verifies that before use: a
    /// verification each time costs three times the signature.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let signature = self.make_signature(message)?;
        match self {
            Self::Token { point, .. } if !point.verifies(message, &signature) => {
                let why = "it gave a signature that does not verify".to_owned();
                Err(TokenFault::Unavailable(why).into())
            }
            _ => Ok(signature),
        }
    }

    fn make_signature(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self {
            Self::Memory(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignerError::Refused),
            Self::Token { token, id, .. } => {
                let raw = token.sign(id, digest(&SHA256, message).as_ref())?;
                asn1(&raw).ok_or_else(|| {
                    let why = format!("its signature has {} bytes", raw.len());
                    TokenFault::Unavailable(why).into()
                })
            }
        }
    }
}

/// What a key signs to show that it fits its public half; no certificate and no statement begins so.
const PROOF: &[u8] = b"myelin-ca proof of a key v1";

/// The name of a key in a token, if that is what rests in the store.
pub(super) fn id_in_token(at_rest: &[u8]) -> Option<&[u8]> {
    at_rest.strip_prefix(IN_TOKEN)
}

/// `SEQUENCE { INTEGER r, INTEGER s }` (RFC 3279, section 2.2.3).
fn asn1(raw: &[u8]) -> Option<Vec<u8>> {
    let mut inside = Vec::new();
    if raw.len() != RAW_SIGNATURE_BYTES {
        return None;
    }
    for number in raw.chunks(RAW_SIGNATURE_BYTES / 2) {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        let number = number.get(zeros..).filter(|digits| !digits.is_empty())?;
        // A high first bit would make it negative.
        let pad = usize::from(number[0] & 0x80 != 0);
        inside.extend([0x02, u8::try_from(number.len() + pad).ok()?]);
        inside.extend(std::iter::repeat_n(0, pad));
        inside.extend(number);
    }
    let mut out = vec![0x30, u8::try_from(inside.len()).ok()?];
    out.extend(inside);
    Some(out)
}

/// An uncompressed P-256 point: 65 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicPoint(pub(super) Vec<u8>);

impl PublicKeyData for PublicPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl PublicPoint {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests;
