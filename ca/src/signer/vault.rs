//! Where CA keys lie while they are not in use, and how they come out: sealed in the store and
//! opened with the seal key, or in a token that never gives them away. `rotation` and the offline
//! root ask here for new keys; what comes back of one to the store opens again here only.
//!
//! Never: writes anything itself, or knows what a key is for.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::seal::SealKey;

use super::key::{Key, id_in_token};
use super::token::Token;
use super::{SealedIssuer, SignerError};

/// Makes and opens CA keys. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    seal_key: SealKey,
    token: Option<Token>,
}

impl Vault {
    /// Keys are in memory while in use, and sealed at rest.
    pub fn sealed(seal_key: SealKey) -> Self {
        Self { seal_key, token: None }
    }

    /// New keys are made in this token and stay there; what was sealed before still opens.
    pub fn in_token(seal_key: SealKey, token: Token) -> Self {
        Self { seal_key, token: Some(token) }
    }

    /// What seals keys at rest, for other secrets of the CA (each with a purpose of its own).
    pub fn seal_key(&self) -> &SealKey {
        &self.seal_key
    }

    /// Parts with the key of an issuer that signs no more. A sealed key is gone with its record; one
    /// in a token is destroyed there, and if that fails it stays behind, of no use to anybody.
    pub fn forget(&self, retired: &SealedIssuer) {
        if let (Some(token), Some(id)) = (&self.token, id_in_token(&retired.sealed_key))
            && let Err(error) = token.forget(id.to_vec())
        {
            tracing::warn!(%error, "a retired CA key stays behind in the token");
        }
    }

    /// A new key, and what of it may rest in the store.
    pub(super) fn make(&self) -> Result<(Key, Vec<u8>), SignerError> {
        match &self.token {
            Some(token) => Key::in_token(token),
            None => Key::in_memory(&self.seal_key),
        }
    }

    /// The key that rests here and belongs to this public key (an uncompressed point).
    pub(super) fn open(&self, at_rest: &[u8], point: &[u8]) -> Result<Key, SignerError> {
        let key = match (id_in_token(at_rest), &self.token) {
            (Some(id), Some(token)) => Key::of_token(token, id, point)?,
            (Some(_), None) => return Err(SignerError::NoToken),
            (None, _) => Key::unseal(at_rest, &self.seal_key)?,
        };
        if key.public().0 == point {
            Ok(key)
        } else {
            Err(SignerError::Certificate("it is for another key".to_owned()))
        }
    }
}

impl From<SealKey> for Vault {
    fn from(seal_key: SealKey) -> Self {
        Self::sealed(seal_key)
    }
}
