//! From the settings to the means: the token is entered, the seal key is read from where it is (or
//! made, at the very first start), and the vault is opened with both.
//!
//! Never: makes a seal key for a store that was sealed with another.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;

use myelin_identity::seal::SealKey;

use super::AppError;
use crate::config::{Keys, SealKeySource};
use crate::datadir::{DataDir, DataDirError, read_descriptor, read_secret, write_secret};
use crate::signer::token::{self, Token};
use crate::signer::{SignerError, Vault};

/// The wrapped seal key: 12 bytes of nonce and 16 of tag around it.
const WRAPPED_BYTES: usize = SealKey::BYTES + 28;

/// What makes and opens the keys of a CA whose other files are in `data`. `sealed`: whether
/// something there was sealed before, so that a missing seal key is a mistake.
pub(super) fn vault(data: &DataDir, keys: &Keys, sealed: bool) -> Result<Vault, AppError> {
    let token = keys.token.clone().map(token::open).transpose().map_err(SignerError::from)?;
    let seal_key = match &keys.seal_key {
        SealKeySource::DataDir => from_file(&data.default_seal_key(), sealed)?,
        SealKeySource::File(path) => from_file(path, sealed)?,
        SealKeySource::Descriptor(number) => SealKey::from_bytes(*read_descriptor(*number)?),
        SealKeySource::Wrapped(label) => {
            let token = token.as_ref().ok_or(SignerError::NoToken)?;
            unwrapped(&data.wrapped_seal_key(), sealed, token, label)?
        }
    };
    Ok(match token {
        Some(token) => Vault::in_token(seal_key, token),
        None => Vault::sealed(seal_key),
    })
}

fn from_file(path: &Path, sealed: bool) -> Result<SealKey, AppError> {
    if path.exists() {
        return Ok(SealKey::from_bytes(*read_secret(path)?));
    }
    let key = fresh(path, sealed)?;
    write_secret(path, key.reveal())?;
    Ok(key)
}

fn unwrapped(path: &Path, sealed: bool, token: &Token, label: &str) -> Result<SealKey, AppError> {
    if path.exists() {
        let wrapped = read_secret::<WRAPPED_BYTES>(path)?;
        let key = token.unwrap(label, &*wrapped).map_err(SignerError::from)?;
        let key = <[u8; SealKey::BYTES]>::try_from(&key[..]).map_err(|_| {
            DataDirError::SecretLength { path: path.to_owned(), expected: WRAPPED_BYTES }
        })?;
        return Ok(SealKey::from_bytes(key));
    }
    let key = fresh(path, sealed)?;
    write_secret(path, &token.wrap(label, key.reveal()).map_err(SignerError::from)?)?;
    Ok(key)
}

fn fresh(path: &Path, sealed: bool) -> Result<SealKey, AppError> {
    if sealed {
        return Err(AppError::SealKeyMissing(path.to_owned()));
    }
    Ok(SealKey::random()?)
}
