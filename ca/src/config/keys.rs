//! Where the CA's keys come from, as flags: the seal key's source, and the token that holds keys.
//!
//! Never: opens what is named here, or takes a secret on the command line.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::Args;

use crate::signer::token::Pkcs11Settings;

#[derive(Clone, Debug, Default, Args)]
pub struct KeyArgs {
    /// File with the 32-byte key that seals the CA keys at rest (0600), made at first start if it is
    /// not there. Default: <DATA>/seal.key. Keep it on another disk than the data. A systemd
    /// credential is such a file: --seal-key-file %d/<name>.
    #[arg(long, value_name = "FILE")]
    pub seal_key_file: Option<PathBuf>,
    /// Read the 32-byte seal key from this open file descriptor, to its end, and close it. Nothing
    /// is made then: whoever starts the CA keeps the key. 0 is standard input, whatever it is; 3 and
    /// above must be a file or pipe that the CA's own user may open, for it is opened anew.
    #[arg(
        long,
        value_name = "N",
        env = "MYELIN_CA_SEAL_KEY_FD",
        conflicts_with = "seal_key_file",
        value_parser = descriptor
    )]
    pub seal_key_fd: Option<i32>,
    /// Wrap the seal key with the AES key of this label in the PKCS#11 token (made there if it is
    /// not); <DATA>/seal.key.wrapped opens only with the token.
    #[arg(
        long,
        value_name = "LABEL",
        requires = "pkcs11_module",
        conflicts_with_all = ["seal_key_file", "seal_key_fd"]
    )]
    pub seal_key_pkcs11: Option<String>,
    /// PKCS#11 module (the vendor's shared library): new CA keys are made in its token and never
    /// leave it. A statically linked myelin-ca cannot load one.
    #[arg(long, value_name = "FILE", requires_all = ["pkcs11_token", "pkcs11_pin_file"])]
    pub pkcs11_module: Option<PathBuf>,
    /// Label of the token.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub pkcs11_token: Option<String>,
    /// File with the user PIN of the token, one line (0600).
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub pkcs11_pin_file: Option<PathBuf>,
}

/// What `app` needs to open the CA's keys.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub seal_key: SealKeySource,
    pub token: Option<Pkcs11Settings>,
}

/// Where the key that seals the others is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SealKeySource {
    /// `seal.key` in the data directory, made if it is not there.
    #[default]
    DataDir,
    File(PathBuf),
    Descriptor(i32),
    /// `seal.key.wrapped` in the data directory, under the token's AES key of this label.
    Wrapped(String),
}

impl KeyArgs {
    pub fn keys(&self) -> Keys {
        let seal_key = match (&self.seal_key_file, self.seal_key_fd, &self.seal_key_pkcs11) {
            (Some(file), ..) => SealKeySource::File(file.clone()),
            (_, Some(number), _) => SealKeySource::Descriptor(number),
            (.., Some(label)) => SealKeySource::Wrapped(label.clone()),
            (None, None, None) => SealKeySource::DataDir,
        };
        let token = self.pkcs11_module.clone().map(|module| Pkcs11Settings {
            module,
            token_label: self.pkcs11_token.clone().unwrap_or_default(),
            pin_file: self.pkcs11_pin_file.clone().unwrap_or_default(),
        });
        Keys { seal_key, token }
    }
}

/// Standard output and error are for what people read.
fn descriptor(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(number @ (0 | 3..)) => Ok(number),
        _ => Err("expected 0 (standard input), or 3 or above".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_is_standard_input_or_one_that_was_opened_for_it() {
        for (text, expected) in [("0", Some(0)), ("3", Some(3)), ("19", Some(19))] {
            assert_eq!(descriptor(text).ok(), expected);
        }
        for wrong in ["1", "2", "-1", "", "x", "2147483648"] {
            assert!(descriptor(wrong).is_err(), "{wrong}");
        }
    }
}
