//! The CA's own keys through time: makes the root at the very first start, renews the issuing
//! intermediate at half of its life or when another root becomes the active one, and moves the
//! root ladder. `authority` asks it for the signer of the moment; `app` ticks it.
//!
//! The old intermediate needs no place of its own: every chain carries the intermediate that issued
//! its leaf. Every step of the ladder is one commit, so a process that dies anywhere leaves the
//! ladder before the step or after it.
//!
//! Never: reads a clock (callers pass `now`), swaps a signer in before its certificate was checked
//! and stored, or believes a record of the store that no trusted root signed.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use myelin_identity::bundle::{RootId, Rung, SignedStep, TrustBundle};
use myelin_identity::id::TrustDomain;
use rustls_pki_types::CertificateDer;

use crate::clock::UnixSeconds;
use crate::journal::{Batch, BundleRecord, CURRENT, IssuerRecord, Journal, root_name};
use crate::log::Which;
use crate::replica::ReplicaId;
use crate::signer::{Signer, Vault};
use crate::store::Commit;
use crate::template::Validity;

mod climb;
mod elsewhere;
mod error;
mod first;
pub mod ladder;
mod make;
mod pin;
mod replicas;
mod successor;
mod trust;

pub use climb::Lagging;
pub use elsewhere::{Adopted, adopt, holds_root_key, waits_for_issuer};
pub use error::RotationError;
pub use pin::Pin;
pub use replicas::issuing_name;
pub use successor::{ALARMS, Cover, cover, successors};
pub use trust::{IGNORED_WORDS, Ignored};

pub use make::names;

use make::{from_record, make_issuing, to_record};
use trust::Trust;

/// What to do about an issuer at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Fresh,
    /// Half of its life is over: a successor is due.
    Due,
}

/// What a tick did about the issuing intermediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    NotDue,
    Renewed,
    /// It is due, and the root's key is not here to sign a successor.
    NoRootKey,
}

/// The signer of the moment, the bundle, and the means to renew both.
pub struct Rotation {
    journal: Journal,
    vault: Vault,
    home: Home,
    trust: ArcSwap<Trust>,
    issuing: ArcSwap<Issuing>,
    /// The revision of the store's trust record when it was last looked at, believed or not.
    looked_at: AtomicU64,
    /// Held while an intermediate is made: the clock, a move and a request may all want it at once.
    renewing: tokio::sync::Mutex<()>,
    /// Held while a further step is pinned and taken over.
    keeping: Mutex<()>,
    /// What was last ignored, so that it is said once.
    ignored: Mutex<Option<Ignored>>,
}

/// The signer of one certificate, bound to the step of the ladder under which it was taken.
#[derive(Clone)]
pub struct Signing {
    signer: Arc<Signer>,
    on: u64,
}

/// What this replica calls its own: its id, and the anchor of its trust.
#[derive(Clone, Debug)]
pub struct Home {
    pub replica: ReplicaId,
    pub pin: Pin,
}

/// The issuing intermediate, and the root above it.
struct Issuing {
    signer: Arc<Signer>,
    root: Option<RootId>,
}

/// Whether an issuer with this validity is due for renewal.
pub fn stage(validity: Validity, now: UnixSeconds) -> Stage {
    let half = validity.not_before + validity.not_after.saturating_sub(validity.not_before) / 2;
    if now < half { Stage::Fresh } else { Stage::Due }
}

impl Rotation {
    /// Opens the CA of this store, or makes it if there is none yet.
    pub async fn start(
        journal: Journal,
        trust_domain: &TrustDomain,
        vault: impl Into<Vault>,
        home: Home,
        now: UnixSeconds,
    ) -> Result<Self, RotationError> {
        let vault = vault.into();
        let trust = first::believe(&journal, trust_domain, &vault, &home, now).await?;
        let found = trust.bundle.trust_domain();
        if found != trust_domain {
            let (found, expected) = (found.to_string(), trust_domain.to_string());
            return Err(RotationError::OtherTrustDomain { found, expected });
        }
        let trust = trust.recall(&journal).await?;
        let signer = match replicas::issuing(&journal, &home.replica).await? {
            Some(own) => Signer::open(&from_record(&own.record), &vault)?,
            None => first::issuing(&journal, &trust, &vault, &home.replica, now).await?,
        };
        let issuing = Issuing::new(signer, &trust.bundle);
        let rotation = Self {
            journal,
            vault,
            home,
            trust: ArcSwap::from_pointee(trust),
            issuing: ArcSwap::from_pointee(issuing),
            looked_at: AtomicU64::new(0),
            renewing: tokio::sync::Mutex::default(),
            keeping: Mutex::default(),
            ignored: Mutex::new(None),
        };
        rotation.refresh().await?;
        rotation.tick(now).await?;
        Ok(rotation)
    }

    pub fn signer(&self) -> Arc<Signer> {
        self.issuing.load().signer.clone()
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.trust.load().bundle.clone()
    }

    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    pub fn replica(&self) -> &ReplicaId {
        &self.home.replica
    }

    /// Where another file lies beside the pin of this replica.
    pub fn beside_pin(&self, name: &str) -> PathBuf {
        self.home.pin.path().with_file_name(name)
    }

    /// Where the ladder stands.
    pub fn step(&self) -> Arc<SignedStep> {
        self.trust.load().step.clone()
    }

    /// The way to the present bundle, oldest step first.
    pub fn steps(&self) -> Arc<Vec<SignedStep>> {
        self.trust.load().steps.clone()
    }

    /// The root above an intermediate, if it is one of the bundle's.
    pub fn root_of(&self, intermediate: &CertificateDer<'_>) -> Option<RootId> {
        let issuing = self.issuing.load();
        if issuing.signer.certificate() == intermediate {
            return issuing.root;
        }
        self.bundle().issuer_of(intermediate)
    }

    /// The signer for one certificate, and the step of the ladder that it stands on. `None` while it
    /// hangs under a root that issues no longer: `tick` makes the next.
    pub fn signing(&self) -> Option<Signing> {
        // Read before the rest: a step that comes meanwhile makes the commit conflict.
        let on = self.looked_at.load(Ordering::Acquire);
        let (trust, issuing) = (self.trust.load(), self.issuing.load());
        let step = &trust.step.step;
        let follows = issuing.root.is_some_and(|root| match step.rung {
            Rung::Activated => root == step.active,
            Rung::Settled | Rung::Prepared => step.bundle.holds_root(&root),
        });
        follows.then(|| Signing { signer: issuing.signer.clone(), on })
    }

    /// Looks at the store, and believes what is signed; says whether the ladder has moved.
    pub async fn refresh(&self) -> Result<bool, RotationError> {
        let trust = self.trust.load_full();
        let looked = trust.look(&self.journal).await?;
        let moved = match looked.outcome {
            Ok(None) => {
                self.ignore(None);
                false
            }
            Ok(Some(further)) => {
                self.ignore(None);
                self.take_over(further)?;
                true
            }
            Err(ignored) => {
                self.ignore(Some(ignored));
                false
            }
        };
        self.looked_at.store(looked.revision.unwrap_or(0), Ordering::Release);
        Ok(moved)
    }

    /// What the store holds that is not believed, if it holds such a thing now.
    pub fn ignored(&self) -> Option<Ignored> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews the issuing intermediate if its time has come or another root is the active one.
    pub async fn tick(&self, now: UnixSeconds) -> Result<Renewal, RotationError> {
        let _one_at_a_time = self.renewing.lock().await;
        let trust = self.trust.load_full();
        let active = trust.step.step.active;
        let issuing = self.issuing.load_full();
        let fresh = stage(issuing.signer.validity(), now) == Stage::Fresh;
        if fresh && issuing.root == Some(active) {
            return Ok(Renewal::NotDue);
        }
        let root = match self.root(&active).await {
            Ok(root) => root,
            Err(RotationError::NoRootKey { .. }) => return self.succeed(now).await,
            Err(error) => return Err(error),
        };
        let name = issuing_name(&self.home.replica);
        let current = self.journal.read(&name).await?.ok_or(RotationError::NoCa)?;
        let (domain, named) = (trust.bundle.trust_domain(), Which::Issuing(&self.home.replica));
        let named = names(&self.journal, named).await?;
        let (signer, successor) = make_issuing(&root, domain, &self.vault, named, now)?;
        let mut batch = Batch::default();
        batch.replace(&current, &to_record(&successor));
        match self.journal.commit(batch).await? {
            Commit::Committed { .. } => {
                self.issuing.store(Arc::new(Issuing::new(signer, &trust.bundle)));
            }
            Commit::Conflict => return Err(RotationError::Raced),
        }
        self.vault.forget(&from_record(&current.record));
        Ok(Renewal::Renewed)
    }

    /// Without the root's key: the next of the intermediates that were imported.
    async fn succeed(&self, now: UnixSeconds) -> Result<Renewal, RotationError> {
        let replica = &self.home.replica;
        let Some(signer) = successor::take(&self.journal, &self.vault, replica, now).await? else {
            return Ok(Renewal::NoRootKey);
        };
        self.issuing.store(Arc::new(Issuing::new(signer, &self.bundle())));
        Ok(Renewal::Renewed)
    }

    /// Keeps a step that is in the store: in the pin first, so that nobody hears of a step that a
    /// restart would not know. Whoever hears of it first keeps it: the mover, the watch, the tick.
    fn take_over(&self, trust: Trust) -> Result<(), RotationError> {
        let _one_at_a_time = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if trust.step.step.number <= self.trust.load().step.step.number {
            return Ok(());
        }
        self.home.pin.write(&trust.step)?;
        self.trust.store(Arc::new(trust));
        Ok(())
    }

    fn ignore(&self, found: Option<Ignored>) {
        let mut last = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == found {
            return;
        }
        if let Some(Ignored { word, why }) = &found {
            tracing::error!(
                target: "audit", outcome = "trust_ignored", reason = word,
                "the store's trust record is not believed: {why}; somebody or something has changed the store"
            );
        }
        *last = found;
    }

    /// The key of a root, if it is in the store and belongs to that root.
    async fn root(&self, id: &RootId) -> Result<Signer, RotationError> {
        open_root(&self.journal, id, &self.vault).await
    }
}

impl Signing {
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// What was signed counts only if the ladder has not moved since.
    pub fn bind(&self, batch: &mut Batch) {
        bind(batch, self.on);
    }
}

impl Issuing {
    fn new(signer: Signer, bundle: &TrustBundle) -> Self {
        let root = bundle.issuer_of(signer.certificate());
        Self { signer: Arc::new(signer), root }
    }
}

/// The bundle of this store, if a CA was made in it. For commands without a server; nobody checks
/// it against a pin.
pub async fn read_bundle(journal: &Journal) -> Result<Option<TrustBundle>, RotationError> {
    Ok(trust::current(journal).await?.map(|signed| signed.step.bundle))
}

/// Binds a batch to the step of the ladder that was read with this revision.
fn bind(batch: &mut Batch, revision: u64) {
    match revision {
        // The record is missing or unreadable, and that was said: what is pinned goes on.
        0 => {}
        revision => batch.unchanged_since::<BundleRecord>(CURRENT, revision),
    }
}

async fn open_root(journal: &Journal, id: &RootId, vault: &Vault) -> Result<Signer, RotationError> {
    let root = || id.to_string();
    let Some(entry) = journal.read::<IssuerRecord>(&root_name(id)).await? else {
        return Err(RotationError::NoRootKey { root: root() });
    };
    let signer = Signer::open(&from_record(&entry.record), vault)?;
    if RootId::of(signer.certificate()) != *id {
        return Err(RotationError::OtherRootKey { root: root() });
    }
    Ok(signer)
}

#[cfg(test)]
mod tests;
