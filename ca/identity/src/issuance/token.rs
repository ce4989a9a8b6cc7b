//! The text form of a join token, `mjt1.<secret>.<bundle hash>`: what an operator carries from the
//! CA to a host. Called by the CA that makes it and the sidecar that reads it.
//! Never: the ID or the addresses that it stands for (the CA keeps those), or the secret by
//! accident.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::TokenSecret;
use crate::bundle::BundleHash;

const PREFIX: &str = "mjt1";

/// `mjt1`, 43 characters, 64 characters and two dots.
const TEXT_BYTES: usize = 4 + 1 + 43 + 1 + 64;

/// A one-time secret, and the hash by which its holder knows the CA. `Display` and `Debug` leave
/// the secret out; [`JoinToken::reveal`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub secret: TokenSecret,
    pub bundle_hash: BundleHash,
}

/// Why a text is no join token. Never repeats the text: most of it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the join token does not begin with `{PREFIX}.`; \
         copy it whole from `myelin-ca token create`"
    )]
    Prefix,
    #[error(
        "the join token has {bytes} characters, not {TEXT_BYTES}; \
         copy it whole, without line breaks"
    )]
    Length { bytes: usize },
    #[error("the join token's secret is damaged; copy it again, or create a new token")]
    Secret,
    #[error("the join token's bundle hash is damaged; copy it again, or create a new token")]
    BundleHash,
}

impl JoinToken {
    /// The whole text, with the secret.
    pub fn reveal(&self) -> String {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(self.secret.reveal());
        format!("{PREFIX}.{secret}.{}", self.bundle_hash)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// White space around it (a file's last newline) does not count.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let rest = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(TokenError::Prefix)?;
        if text.len() != TEXT_BYTES {
            return Err(TokenError::Length { bytes: text.len() });
        }
        let (secret, hash) = rest.split_once('.').ok_or(TokenError::Secret)?;
        let secret: [u8; TokenSecret::BYTES] = BASE64_URL_SAFE_NO_PAD
            .decode(secret)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(TokenError::Secret)?;
        Ok(Self {
            secret: TokenSecret::from_bytes(secret),
            bundle_hash: hash.parse().map_err(|_| TokenError::BundleHash)?,
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.<secret>.{}", self.bundle_hash)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({self})")
    }
}
