//! The host key: what this machine proves at every issue, and with which alone it comes back after
//! a reboot or a long outage. Sealed on disk. Called by `credentials::run` and `issue`.
//!
//! Never: speaks TLS, signs anything but a `HostProof`, leaves the process or a log in the clear.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::signature::Ed25519KeyPair;
use myelin_identity::issuance::{self, EXPORTER_BYTES, HostSpki, RequestKey};
use myelin_identity::seal::{self, SealKey};

use super::state_dir::{Secrecy, StateDir, StateError};

const SEAL_KEY_FILE: &str = "seal.key";
const HOST_KEY_FILE: &str = "host.key";
/// Says what was sealed, so that no other sealed file can be put in its place.
const SEALED_AS: &[u8] = b"myelin host key v1";

/// Why there is no host key to work with: the operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "{path} is corrupt ({reason}); remove it and start again with a new join token \
         (`myelin-ca token create`)"
    )]
    Corrupt { path: PathBuf, reason: &'static str },
    #[error(
        "{sealed} is there but {seal_key} is not; restore it, or remove {sealed} and start again \
         with a new join token (`myelin-ca token create`)"
    )]
    SealKeyMissing { sealed: PathBuf, seal_key: PathBuf },
    #[error("making a host key failed in the cryptographic library; this is a defect of ours")]
    Generation,
}

/// An Ed25519 key that proves this host to the CA.
pub(super) struct HostKey {
    pair: Ed25519KeyPair,
    spki: HostSpki,
}

impl HostKey {
    /// The host key of an earlier run, or `None` where this host never had one.
    pub(super) fn load(state: &StateDir) -> Result<Option<Self>, HostKeyError> {
        let Some(sealed) = state.read(HOST_KEY_FILE, Secrecy::Secret)? else {
            return Ok(None);
        };
        let path = state.file(HOST_KEY_FILE);
        let Some(seal_key) = load_seal_key(state)? else {
            let seal_key = state.file(SEAL_KEY_FILE);
            return Err(HostKeyError::SealKeyMissing { sealed: path, seal_key });
        };
        let pkcs8 = seal::open(&seal_key, SEALED_AS, &sealed).map_err(|_| {
            let reason = "it does not open with seal.key";
            HostKeyError::Corrupt { path: path.clone(), reason }
        })?;
        let key = Self::from_pkcs8(&pkcs8);
        key.map(Some).ok_or(HostKeyError::Corrupt { path, reason: "it holds no Ed25519 key" })
    }

    /// Makes a host key and keeps it, sealed, before anybody hears of it: a crash after the first
    /// issue must not lose what the CA has already written down.
    pub(super) fn generate(state: &StateDir) -> Result<Self, HostKeyError> {
        let seal_key = match load_seal_key(state)? {
            Some(key) => key,
            None => make_seal_key(state)?,
        };
        let pair = Ed25519KeyPair::generate().map_err(|_| HostKeyError::Generation)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| HostKeyError::Generation)?;
        let sealed = seal::seal(&seal_key, SEALED_AS, pkcs8.as_ref())
            .map_err(|_| HostKeyError::Generation)?;
        state.write(HOST_KEY_FILE, &sealed, Secrecy::Secret)?;
        Self::from_pkcs8(pkcs8.as_ref()).ok_or(HostKeyError::Generation)
    }

    /// How the CA knows this host.
    pub(super) fn spki(&self) -> HostSpki {
        self.spki
    }

    /// Proves this host for one request on one TLS connection.
    pub(super) fn prove(
        &self,
        exporter: &[u8; EXPORTER_BYTES],
        csr_der: &[u8],
        request_key: &RequestKey,
    ) -> Vec<u8> {
        issuance::sign_host_proof(&self.pair, exporter, csr_der, request_key)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        Some(Self { spki: HostSpki::of(&pair), pair })
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey")
    }
}

fn load_seal_key(state: &StateDir) -> Result<Option<SealKey>, HostKeyError> {
    let Some(bytes) = state.read(SEAL_KEY_FILE, Secrecy::Secret)? else {
        return Ok(None);
    };
    let bytes = <[u8; SealKey::BYTES]>::try_from(bytes).map_err(|_| HostKeyError::Corrupt {
        path: state.file(SEAL_KEY_FILE),
        reason: "expected exactly 32 bytes",
    })?;
    Ok(Some(SealKey::from_bytes(bytes)))
}

fn make_seal_key(state: &StateDir) -> Result<SealKey, HostKeyError> {
    let key = SealKey::random().map_err(|_| HostKeyError::Generation)?;
    state.write(SEAL_KEY_FILE, key.reveal(), Secrecy::Secret)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn state() -> (tempfile::TempDir, StateDir) {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        (outer, state)
    }

    #[test]
    fn a_host_key_is_the_same_after_a_restart() {
        let (_outer, state) = state();
        assert!(HostKey::load(&state).unwrap().is_none());
        let made = HostKey::generate(&state).unwrap();
        let loaded = HostKey::load(&state).unwrap().unwrap();
        assert_eq!(made.spki(), loaded.spki());
        let request_key = RequestKey::from_bytes([2; RequestKey::BYTES]);
        let verifies = |exporter, signature: &[u8]| {
            issuance::verify_host_proof(&made.spki(), exporter, b"csr", &request_key, signature)
        };
        let signature = loaded.prove(&[1; EXPORTER_BYTES], b"csr", &request_key);
        assert!(verifies(&[1; EXPORTER_BYTES], &signature).is_ok());
        assert!(verifies(&[9; EXPORTER_BYTES], &signature).is_err(), "of another connection");
    }

    #[test]
    fn the_file_does_not_hold_the_key_in_the_clear() {
        let (_outer, state) = state();
        let made = HostKey::generate(&state).unwrap();
        let pkcs8 = made.pair.to_pkcs8v1().unwrap();
        let private = &pkcs8.as_ref()[16..48];
        let file = fs::read(state.file(HOST_KEY_FILE)).unwrap();
        assert!(!file.windows(private.len()).any(|seen| seen == private));
    }

    #[test]
    fn a_corrupt_host_key_is_refused_with_the_way_out() {
        let (_outer, state) = state();
        HostKey::generate(&state).unwrap();
        let path = state.file(HOST_KEY_FILE);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = HostKey::load(&state).unwrap_err();
        assert!(matches!(error, HostKeyError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("new join token"), "{error}");
    }

    #[test]
    fn a_missing_or_short_seal_key_is_refused() {
        let (_outer, state) = state();
        HostKey::generate(&state).unwrap();
        let path = state.file(SEAL_KEY_FILE);
        fs::write(&path, b"short").unwrap();
        assert!(matches!(HostKey::load(&state), Err(HostKeyError::Corrupt { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(HostKey::load(&state), Err(HostKeyError::SealKeyMissing { .. })));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_outer, state) = state();
        HostKey::generate(&state).unwrap();
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(state.file(HOST_KEY_FILE), open).unwrap();
        let outcome = HostKey::load(&state);
        assert!(matches!(outcome, Err(HostKeyError::State(StateError::Mode { .. }))));
    }

    #[test]
    fn a_host_key_never_shows_itself_in_debug_output() {
        let (_outer, state) = state();
        assert_eq!(format!("{:?}", HostKey::generate(&state).unwrap()), "HostKey");
    }
}
