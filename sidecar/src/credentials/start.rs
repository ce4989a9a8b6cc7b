//! What this sidecar starts with: state directory, host key, bundle, join token; and the one line
//! that says what is missing. Called by `credentials::run`.
//!
//! Never: talks to the CA, shows the token.

// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use myelin_identity::bundle::{BundleError, BundleHash, SignedDenyList, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::JoinToken;

use super::host_key::{HostKey, HostKeyError};
use super::kept_list::KeptList;
use super::state_dir::{Secrecy, StateDir, StateError};

const BUNDLE_FILE: &str = "bundle.pem";
/// The first line of the file: the generation of the bundle, and the hash of the bundle of which that
/// is said. Other readers of PEM pass it over. Roots come back when a rotation is gone back from: only
/// the generation tells the present bundle from an earlier one with the same roots.
const GENERATION_LINE: &str = "myelin-bundle-generation: ";
/// A file that the operator put there says no generation; the CA's first answer does.
const UNKNOWN_GENERATION: u64 = 0;

/// Why this sidecar can never get an identity as it was started: the operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    #[error(
        "{state} holds no host key and no join token was given; run `myelin-ca token create --id \
         <SPIFFE ID> --address <address>` at the CA and start with the token that it prints, or \
         set ca.kubernetes_token_file or ca.machine_certificate_file"
    )]
    NothingToStartWith { state: PathBuf },
    #[error(
        "{path} is missing and no join token was given, so the CA cannot be recognised; restore it \
         from the CA's /bundle.pem, set ca.bundle_file, or start with a new join token \
         (`myelin-ca token create`)"
    )]
    NoBundle { path: PathBuf },
    #[error("{path} cannot be used: {source}; restore it from the CA's /bundle.pem, or remove it")]
    BundleFile { path: PathBuf, source: BundleError },
    #[error("the join token was refused: {said}")]
    TokenRefused { said: String },
    #[error(
        "the CA does not know the host key in {state} ({said}); start with a new join token \
         (`myelin-ca token create`)"
    )]
    HostUnknown { state: PathBuf, said: String },
    #[error(
        "this host was denied after an alarm or revoked ({said}); if its keys were copied, find out by \
         whom, then remove {state} and start with a new join token (`myelin-ca token create`)"
    )]
    HostDenied { state: PathBuf, said: String },
}

/// Everything that is on this machine at start.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) host: HostKey,
    /// The CA may know the host key from an earlier run.
    pub(super) enrolled: bool,
    pub(super) token: Option<JoinToken>,
    pub(super) bundle: Option<Arc<TrustBundle>>,
    /// Whoever was denied when this sidecar went down.
    pub(super) denied: Option<SignedDenyList>,
    pub(super) file: TrustFiles,
}

impl Start {
    /// Opens the state directory and makes a host key where there is none and a token allows it, or
    /// evidence from outside (`attests`).
    pub(super) fn open(
        state_dir: &Path,
        trust_domain: &TrustDomain,
        token: Option<JoinToken>,
        pinned: Option<TrustBundle>,
        attests: bool,
    ) -> Result<Self, StartError> {
        let state = StateDir::open(state_dir)?;
        let known = HostKey::load(&state)?;
        if known.is_none() && token.is_none() && !attests {
            return Err(StartError::NothingToStartWith { state: state_dir.into() });
        }
        let bundle = match read_bundle(&state, trust_domain) {
            // The token's hash finds the CA without it, and its answer replaces the file.
            Err(StartError::BundleFile { .. }) if token.is_some() => None,
            read => read?,
        };
        // What was learned since knows more roots than what was pinned once.
        let bundle = bundle.or(pinned);
        if bundle.is_none() && token.is_none() {
            return Err(StartError::NoBundle { path: state.file(BUNDLE_FILE) });
        }
        let enrolled = known.is_some();
        let host = match known {
            Some(host) => host,
            None => HostKey::generate(&state)?,
        };
        let saved = bundle.as_ref().map(|bundle| (bundle.hash(), bundle.generation()));
        let saved = Mutex::new(saved);
        let (kept, denied) = KeptList::load(&state)?;
        let file = TrustFiles { state, saved, kept };
        Ok(Self { host, enrolled, token, bundle: bundle.map(Arc::new), denied, file })
    }
}

/// Where the newest bundle and deny list are kept, so that a restart recognises the CA without a
/// token, and the denied before the CA has named them again.
#[derive(Debug)]
pub(super) struct TrustFiles {
    state: StateDir,
    saved: Mutex<Option<(BundleHash, u64)>>,
    kept: KeptList,
}

impl TrustFiles {
    /// Keeps a deny list that was just verified.
    pub(super) fn save_denied(&self, signed: &SignedDenyList) -> Result<(), StateError> {
        self.kept.save(&self.state, signed)
    }

    /// Writes the bundle if it differs from what is there. It runs at start and once a rotation
    /// step, on the runtime that carries no workload's bytes.
    pub(super) fn save(&self, bundle: &TrustBundle) -> Result<(), StateError> {
        // A panic while writing left the old file or the new one, never a mixture.
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let (hash, generation) = (bundle.hash(), bundle.generation());
        if *saved == Some((hash, generation)) {
            return Ok(());
        }
        let text = format!("{GENERATION_LINE}{generation} of {hash}\n{}", bundle.to_pem());
        self.state.write(BUNDLE_FILE, text.as_bytes(), Secrecy::Public)?;
        *saved = Some((hash, generation));
        Ok(())
    }
}

fn read_bundle(
    state: &StateDir,
    trust_domain: &TrustDomain,
) -> Result<Option<TrustBundle>, StartError> {
    let Some(bytes) = state.read(BUNDLE_FILE, Secrecy::Public)? else {
        return Ok(None);
    };
    let pem = String::from_utf8_lossy(&bytes);
    let read = |generation| {
        TrustBundle::from_pem(trust_domain.clone(), generation, &pem)
            .map_err(|source| StartError::BundleFile { path: state.file(BUNDLE_FILE), source })
    };
    let bundle = read(UNKNOWN_GENERATION)?;
    match kept_generation(&pem, bundle.hash()) {
        Some(generation) => read(generation).map(Some),
        None => Ok(Some(bundle)),
    }
}

/// What the file says of its generation, if it says it of these very roots.
fn kept_generation(pem: &str, hash: BundleHash) -> Option<u64> {
    let (generation, of) = pem.lines().next()?.strip_prefix(GENERATION_LINE)?.split_once(" of ")?;
    (of.trim() == hash.to_string()).then(|| generation.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::{Root, trust_domain};
    use myelin_identity::issuance::TokenSecret;
    use std::fs;

    fn token(bundle: &TrustBundle) -> JoinToken {
        JoinToken { secret: TokenSecret::from_bytes([1; 32]), bundle_hash: bundle.hash() }
    }

    #[test]
    fn a_start_with_nothing_says_exactly_what_to_do() {
        let outer = tempfile::tempdir().unwrap();
        let error =
            Start::open(&outer.path().join("s"), &trust_domain(), None, None, false).unwrap_err();
        assert!(matches!(error, StartError::NothingToStartWith { .. }), "{error}");
        let line = error.to_string();
        assert!(line.contains("myelin-ca token create") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_first_start_with_a_token_makes_a_host_key_and_a_second_one_needs_no_token() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("s");
        let bundle = Root::new().bundle(3);
        let first = Start::open(&path, &trust_domain(), Some(token(&bundle)), None, false).unwrap();
        assert!(!first.enrolled && first.bundle.is_none());
        first.file.save(&bundle).unwrap();
        let spki = first.host.spki();
        drop(first);
        let second = Start::open(&path, &trust_domain(), None, None, false).unwrap();
        assert!(second.enrolled && second.token.is_none());
        assert_eq!(second.host.spki(), spki);
        assert_eq!(second.bundle.unwrap().hash(), bundle.hash());
    }

    #[test]
    fn the_generation_is_kept_with_the_roots_of_which_it_is_said() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("s");
        let file = path.join(BUNDLE_FILE);
        let [root, other] = [Root::new(), Root::new()];
        let open = |token| Start::open(&path, &trust_domain(), token, None, false).unwrap();
        let kept = || {
            let bundle = open(None).bundle.unwrap();
            (bundle.generation(), bundle.hash())
        };
        let first = open(Some(token(&root.bundle(1))));
        first.file.save(&root.bundle(1)).unwrap();
        // A rotation began and was gone back from: the same roots, and another generation.
        first.file.save(&root.bundle_with(&other, 2)).unwrap();
        first.file.save(&root.bundle(3)).unwrap();
        drop(first);
        assert_eq!(kept(), (3, root.bundle(3).hash()));
        // Also if nothing else has changed since what was read at start.
        let second = open(None);
        second.file.save(&root.bundle(5)).unwrap();
        drop(second);
        assert_eq!(kept(), (5, root.bundle(5).hash()));
        // What an operator restores says none, and what is said of other roots counts for nothing.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen(GENERATION_LINE, "", 1)).unwrap();
        assert_eq!(kept(), (UNKNOWN_GENERATION, root.bundle(0).hash()));
        let (line, _) = text.split_once('\n').unwrap();
        fs::write(&file, format!("{line}\n{}", other.bundle(0).to_pem())).unwrap();
        assert_eq!(kept(), (UNKNOWN_GENERATION, other.bundle(0).hash()));
        for damaged in ["", " of ", "-1 of x", "99999999999999999999 of x"] {
            let damaged = format!("{GENERATION_LINE}{damaged}\n{}", root.bundle(0).to_pem());
            fs::write(&file, damaged).unwrap();
            assert_eq!(kept().0, UNKNOWN_GENERATION);
        }
    }

    #[test]
    fn a_host_key_without_bundle_or_token_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("s");
        drop(
            Start::open(&path, &trust_domain(), Some(token(&Root::new().bundle(1))), None, false)
                .unwrap(),
        );
        let error = Start::open(&path, &trust_domain(), None, None, false).unwrap_err();
        assert!(matches!(error, StartError::NoBundle { .. }), "{error}");
    }

    #[test]
    fn a_corrupt_bundle_is_refused_without_a_token_and_replaced_with_one() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("s");
        let token = token(&Root::new().bundle(1));
        drop(Start::open(&path, &trust_domain(), Some(token.clone()), None, false).unwrap());
        fs::write(path.join(BUNDLE_FILE), "no PEM").unwrap();
        let error = Start::open(&path, &trust_domain(), None, None, false).unwrap_err();
        assert!(matches!(error, StartError::BundleFile { .. }), "{error}");
        let start = Start::open(&path, &trust_domain(), Some(token), None, false).unwrap();
        assert!(start.bundle.is_none());
    }
}
