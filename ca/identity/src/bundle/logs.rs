//! Which log counts below a root: the one that the root's certificate names; where it names none, for
//! somebody else made it, the one that the bundle states. What is stated is as much a part of the
//! bundle as its roots: it is in the hash, and so in every join token and in what sidecars keep.
//! Never: lets a statement overrule a certificate, or be taken back.

// SPDX-License-Identifier: Apache-2.0

use super::{BundleError, Root, RootId, TrustBundle};
use crate::log::{LogKey, NamedLogError, named_log, named_log_extension};
use crate::x509::sha256;

/// Sets what is hashed for a root with a stated log apart from the hash of any certificate.
const HASHED_LABEL: &[u8] = b"myelin root with a stated log v1\0";

impl TrustBundle {
    /// States this log for every root that names none itself.
    #[must_use]
    pub fn stating(mut self, log: &LogKey) -> Self {
        for root in &mut self.roots {
            if root.names_no_log() {
                root.stated = Some(log.clone());
            }
        }
        self
    }

    /// States logs one by one, as a record or a message has them.
    pub fn with_stated(
        mut self,
        stated: impl IntoIterator<Item = (RootId, LogKey)>,
    ) -> Result<Self, BundleError> {
        for (id, log) in stated {
            let wrong = |why| Err(BundleError::StatedLog { why });
            let Some(root) = self.roots.iter_mut().find(|root| root.id == id) else {
                return wrong("of a root that is not in it");
            };
            if !root.names_no_log() {
                return wrong("of a root whose certificate names one itself");
            }
            if root.stated.replace(log).is_some() {
                return wrong("of one root twice");
            }
        }
        Ok(self)
    }

    /// What is stated, in the order of the roots.
    pub fn stated_logs(&self) -> impl Iterator<Item = (RootId, &LogKey)> {
        self.roots.iter().filter_map(|root| Some((root.id, root.stated.as_ref()?)))
    }

    pub fn stated_log(&self, root: &RootId) -> Option<&LogKey> {
        self.stated_logs().find(|(id, _)| id == root).map(|(_, log)| log)
    }

    /// The log that every CA directly below this root must be in, if there is one.
    pub fn log_of(&self, root: &RootId) -> Result<Option<LogKey>, NamedLogError> {
        let Some(root) = self.roots.iter().find(|held| held.id == *root) else { return Ok(None) };
        Ok(named_log(&root.der)?.or_else(|| root.stated.clone()))
    }

    /// Whether `self` has the roots of `other` and states the logs that `other` states, and more.
    /// Whoever holds `other` loses nothing by taking it: from then on it demands proofs.
    pub fn only_adds_logs_to(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain
            && self.roots.len() == other.roots.len()
            && other.root_ids().all(|root| self.holds_root(&root))
            && other.stated_logs().all(|(root, log)| self.stated_log(&root) == Some(log))
    }
}

impl Root {
    fn names_no_log(&self) -> bool {
        matches!(named_log(&self.der), Ok(None))
    }

    /// What of this root goes into the bundle's hash.
    pub(super) fn hashed(&self) -> RootId {
        let Some(log) = &self.stated else { return self.id };
        let mut bytes = HASHED_LABEL.to_vec();
        bytes.extend(self.id.as_bytes());
        bytes.extend(named_log_extension(log));
        RootId::from_bytes(sha256(&bytes))
    }
}
