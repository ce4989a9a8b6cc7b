//! What the file says, what the controller said last, and both as the policy in force. Called by
//! `watch` with each answer and by `app` at each reload.
//!
//! Never: a policy of which only half is in force; a version that was not taken whole.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use myelin_identity::policy::{PolicyAnswer, PolicyVersion, PolicyView};
use tokio::sync::watch;

use crate::addr::Clock;
use crate::metrics::{Metrics, PolicyUpdate};
use crate::policy::{Config, Policy};

/// Where the policy in force comes from.
pub struct PolicyDesk {
    /// What `inbound` judges by; only this desk writes it.
    policy: Arc<ArcSwap<Policy>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    book: Mutex<Book>,
    /// Bumped when a controller's word has changed the policy.
    changes: watch::Sender<u64>,
}

struct Book {
    file: Config,
    /// Whether a controller decides too.
    is_on: bool,
    held: Option<Held>,
    is_connected: bool,
}

/// What the controller said last.
struct Held {
    version: PolicyVersion,
    view: PolicyView,
    /// The second of the Unix epoch in which it was taken.
    since: u64,
}

/// What of the controller's is in force, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Absent: nothing was said yet, and nobody enters.
    pub version: Option<PolicyVersion>,
    pub since: Option<u64>,
    pub is_connected: bool,
}

/// An answer that makes no sense here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller says that version {said} is still so; we hold {}", shown(.held))]
pub(super) struct NotHeld {
    said: PolicyVersion,
    held: Option<PolicyVersion>,
}

fn shown(held: &Option<PolicyVersion>) -> String {
    held.map_or_else(|| "none".to_owned(), |version| version.to_string())
}

impl PolicyDesk {
    /// `is_on`: nobody enters until a controller has said who may.
    pub fn new(file: Config, is_on: bool, metrics: Arc<Metrics>, clock: Clock) -> Arc<Self> {
        let book = Book { file, is_on, held: None, is_connected: false };
        let policy = Arc::new(ArcSwap::from_pointee(book.policy()));
        let book = Mutex::new(book);
        Arc::new(Self { policy, metrics, clock, book, changes: watch::Sender::new(0) })
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<ArcSwap<Policy>> {
        &self.policy
    }

    /// Hears of each change that a controller brought.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The file was read again.
    pub fn reload(&self, file: Config) {
        let mut book = self.book();
        book.file = file;
        self.policy.store(Arc::new(book.policy()));
    }

    /// Absent where no controller decides.
    pub fn in_force(&self) -> Option<InForce> {
        let book = self.book();
        let held = book.held.as_ref();
        book.is_on.then(|| InForce {
            version: held.map(|held| held.version),
            since: held.map(|held| held.since),
            is_connected: book.is_connected,
        })
    }

    pub(super) fn known(&self) -> Option<PolicyVersion> {
        self.book().held.as_ref().map(|held| held.version)
    }

    /// A controller tells us now, or does no longer.
    pub(super) fn connected(&self, is_connected: bool) {
        self.book().is_connected = is_connected;
        self.metrics.policies().connected(is_connected);
    }

    /// The controller has spoken.
    pub(super) fn take(&self, answer: PolicyAnswer) -> Result<(), NotHeld> {
        let mut book = self.book();
        let held = book.held.as_ref().map(|held| held.version);
        let (version, view) = match answer {
            PolicyAnswer::Unchanged(said) if held != Some(said) => {
                return Err(NotHeld { said, held });
            }
            PolicyAnswer::Policy(version, view) if held != Some(version) => (version, view),
            PolicyAnswer::Unchanged(_) | PolicyAnswer::Policy(..) => {
                self.metrics.policies().update(PolicyUpdate::Unchanged);
                return Ok(());
            }
        };
        let since = self.clock.unix();
        let (allow, deny, audit) = (view.allow.len(), view.deny.len(), view.audit.len());
        book.held = Some(Held { version, view, since });
        self.policy.store(Arc::new(book.policy()));
        drop(book);
        self.metrics.policies().taken(since);
        tracing::info!(%version, allow, deny, audit, "the controller's policy is in force");
        self.changes.send_modify(|generation| *generation += 1);
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere leaves the last whole policy in force.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn policy(&self) -> Policy {
        match (&self.held, self.is_on) {
            (Some(held), _) => Policy::new(self.file.with(&held.view)),
            (None, true) => Policy::pending(self.file.clone()),
            (None, false) => Policy::new(self.file.clone()),
        }
    }
}
