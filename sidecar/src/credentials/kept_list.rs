//! The last deny list that was believed, kept with its signature: a sidecar that starts again knows
//! at its first handshake who was denied when it went down. Called by `credentials::run` and the
//! watch.
//!
//! Never: believes what it reads (the store verifies it under the bundle of the first SVID), or
//! writes a list that was not verified.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use myelin_identity::bundle::SignedDenyList;
use myelin_identity::issuance::proto;
use prost::Message as _;
use rustls::pki_types::CertificateDer;

use super::state_dir::{Secrecy, StateDir, StateError};

const LIST_FILE: &str = "deny.list";
/// A list that says the same is written again after this, so that the intermediate under which it
/// is verified later is a recent one: intermediates live for weeks.
const WRITTEN_AGAIN_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct KeptList {
    /// Of the list in the file.
    written: Mutex<Option<Written>>,
}

#[derive(Debug)]
struct Written {
    epoch: u64,
    said_at: u64,
    /// The intermediate that signed it: a list under a retired root vouches for nothing any more.
    signer: CertificateDer<'static>,
}

impl KeptList {
    /// The list of an earlier run, still signed. What cannot be read is named in the log and left
    /// for the watch to replace: it is no reason not to start.
    pub(super) fn load(state: &StateDir) -> Result<(Self, Option<SignedDenyList>), StateError> {
        let list = state.read(LIST_FILE, Secrecy::Secret)?.and_then(|bytes| {
            let read = parsed(&bytes);
            if let Err(why) = &read {
                let path = state.file(LIST_FILE);
                tracing::warn!("{} is not used: {why}; the CA sends a new one", path.display());
            }
            read.ok()
        });
        let written = list.as_ref().map(Written::of);
        Ok((Self { written: Mutex::new(written) }, list))
    }

    /// Writes a list that was just verified, if the file does not say the same already.
    pub(super) fn save(&self, state: &StateDir, signed: &SignedDenyList) -> Result<(), StateError> {
        // A panic while writing left the old file or the new one, never a mixture.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Written::of(signed);
        let fresh = |held: &Written| {
            let again_at = held.said_at.saturating_add(WRITTEN_AGAIN_AFTER.as_secs());
            held.epoch == new.epoch && held.signer == new.signer && new.said_at < again_at
        };
        if written.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        let bytes = proto::DenyList::from(signed).encode_to_vec();
        state.write(LIST_FILE, &bytes, Secrecy::Secret)?;
        *written = Some(new);
        Ok(())
    }
}

impl Written {
    fn of(signed: &SignedDenyList) -> Self {
        let (epoch, said_at) = (signed.list.epoch(), signed.list.said_at());
        Self { epoch, said_at, signer: signed.signer.clone() }
    }
}

fn parsed(bytes: &[u8]) -> Result<SignedDenyList, String> {
    let wire = proto::DenyList::decode(bytes).map_err(|error| error.to_string())?;
    SignedDenyList::try_from(wire).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use myelin_identity::bundle::{DenyEntry, DenyList, DenySubject};
    use myelin_identity::id::SpiffeId;

    use super::*;
    use crate::credentials::testing::{NOW, Root};

    fn list(epoch: u64, said_at: u64) -> DenyList {
        let subject = DenySubject::Id(SpiffeId::parse("spiffe://example.org/ns/a/sa/b").unwrap());
        DenyList::new(epoch, said_at, [DenyEntry { subject, until: NOW + 9 }]).unwrap()
    }

    fn state() -> (tempfile::TempDir, StateDir) {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("s")).unwrap();
        (outer, state)
    }

    #[test]
    fn a_kept_list_is_there_after_a_restart_with_its_signature() {
        let (_outer, state) = state();
        let root = Root::new();
        let (kept, nothing) = KeptList::load(&state).unwrap();
        assert!(nothing.is_none());
        let signed = root.sign(list(7, NOW));
        kept.save(&state, &signed).unwrap();
        assert_eq!(KeptList::load(&state).unwrap().1, Some(signed));
    }

    #[test]
    fn what_is_no_list_is_no_reason_not_to_start() {
        let (_outer, state) = state();
        state.write(LIST_FILE, b"\xff\xff", Secrecy::Secret).unwrap();
        assert!(KeptList::load(&state).unwrap().1.is_none());
    }

    #[test]
    fn heartbeats_are_not_written_each_time() {
        let (_outer, state) = state();
        let root = Root::new();
        let (kept, _) = KeptList::load(&state).unwrap();
        let held = || KeptList::load(&state).unwrap().1.unwrap().list.said_at();
        let much_later = NOW + WRITTEN_AGAIN_AFTER.as_secs();
        for (epoch, said_at, expected) in [
            (1, NOW, NOW),
            (1, NOW + 5, NOW),
            (2, NOW + 6, NOW + 6),
            (2, much_later + 6, much_later + 6),
        ] {
            kept.save(&state, &root.sign(list(epoch, said_at))).unwrap();
            assert_eq!(held(), expected, "{epoch} {said_at}");
        }
    }

    #[test]
    fn a_list_under_another_intermediate_is_written_at_once() {
        let (_outer, state) = state();
        let (old, new) = (Root::new(), Root::new());
        let (kept, _) = KeptList::load(&state).unwrap();
        kept.save(&state, &old.sign(list(7, NOW))).unwrap();
        let renewed = new.sign(list(7, NOW + 5));
        kept.save(&state, &renewed).unwrap();
        // The twin: the same once more under that one is a heartbeat like others.
        kept.save(&state, &new.sign(list(7, NOW + 10))).unwrap();
        assert_eq!(KeptList::load(&state).unwrap().1, Some(renewed));
    }
}
