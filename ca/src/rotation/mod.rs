//! The CA's own keys through time: makes the root at the very first start, and renews the issuing
//! intermediate at half of its life, unattended. `authority` asks it for the signer of the moment;
//! `app` ticks it.
//!
//! The old intermediate needs no place of its own: every chain carries the intermediate that issued
//! its leaf.
//!
//! Never: reads a clock (callers pass `now`), or swaps a signer in before its certificate was
//! checked and stored.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use arc_swap::ArcSwap;
use myelin_identity::bundle::{BundleError, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::LOG_OID;
use rustls_pki_types::CertificateDer;

use crate::check::{self, Mismatch};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, Blob, BundleRecord, CURRENT, Entry, IssuerRecord, Journal, JournalError, ROOT,
};
use crate::log::{self, LogError, Which};
use crate::random;
use crate::replica::ReplicaId;
use crate::signer::{SealedIssuer, Signer, SignerError, Vault};
use crate::store::{Commit, Lease};
use crate::template::{
    Extension, ISSUING_LIFETIME, IssuerTemplate, ROOT_LIFETIME, Serial, Validity, issuer_validity,
};

mod elsewhere;
mod replicas;
mod successor;

pub use elsewhere::{adopt, holds_root_key, waits_for_issuer};
pub use replicas::issuing_name;
pub use successor::{ALARMS, Cover, cover, successors};

use replicas::Turn;

/// What to do about an issuer at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Fresh,
    /// Half of its life is over: a successor is due.
    Due,
}

#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error("the stored bundle cannot be used: {0}; restore the data directory from a backup")]
    Bundle(#[from] BundleError),
    #[error(
        "this data directory belongs to trust domain {found}, but --trust-domain says {expected}; name the right one of the two"
    )]
    OtherTrustDomain { found: String, expected: String },
    #[error(
        "the store holds no CA yet; start the server once: myelin-ca serve --data <this directory>"
    )]
    NoCa,
    #[error(
        "this data directory has the bundle {found}, but --root-cert makes {given}; leave --root-cert out, or use an empty directory"
    )]
    OtherRoot { found: String, given: String },
    #[error("the root certificate has expired; a new root must be made and its bundle distributed")]
    RootExpired,
    #[error(
        "another process changed this replica's intermediate; is its data directory running twice, or copied? Stop one, and remove replica.id from a copy"
    )]
    Raced,
    #[error(
        "another replica began to make the root and has not finished within {0:?}; look at its log, then start again"
    )]
    RootAwaited(std::time::Duration),
    #[error(
        "the store's root key does not open with this replica's seal key ({0}); all replicas share one key: copy the first replica's, and name it with --seal-key-file"
    )]
    OtherSealKey(SignerError),
    #[error("cannot draw random bytes from the operating system")]
    NoRandomness,
}

/// The signer of the moment, the bundle, and the means to renew.
pub struct Rotation {
    journal: Journal,
    replica: ReplicaId,
    vault: Vault,
    bundle: Arc<TrustBundle>,
    signer: ArcSwap<Signer>,
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
        replica: ReplicaId,
        now: UnixSeconds,
    ) -> Result<Self, RotationError> {
        let vault = vault.into();
        let look = || read_bundle(&journal);
        let bundle = match replicas::turn(&journal, &replica, look).await? {
            Turn::There(bundle) => bundle,
            Turn::Ours(lease) => {
                let made = make_ca(&journal, trust_domain, &vault, &lease, now).await;
                journal.release(&lease).await?;
                made?
            }
        };
        if bundle.trust_domain() != trust_domain {
            let (found, expected) = (bundle.trust_domain().to_string(), trust_domain.to_string());
            return Err(RotationError::OtherTrustDomain { found, expected });
        }
        let signer = match replicas::issuing(&journal, &replica).await? {
            Some(own) => Signer::open(&from_record(&own.record), &vault)?,
            None => first_issuing(&journal, trust_domain, &vault, &replica, now).await?,
        };
        let rotation = Self {
            journal,
            replica,
            vault,
            bundle: Arc::new(bundle),
            signer: ArcSwap::from_pointee(signer),
        };
        rotation.tick(now).await?;
        Ok(rotation)
    }

    pub fn signer(&self) -> Arc<Signer> {
        self.signer.load_full()
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.bundle.clone()
    }

    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    pub fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    /// Renews the issuing intermediate if it is due; says whether it did.
    pub async fn tick(&self, now: UnixSeconds) -> Result<bool, RotationError> {
        if stage(self.signer.load().validity(), now) == Stage::Fresh {
            return Ok(false);
        }
        let Some(root) = self.journal.read::<IssuerRecord>(ROOT).await? else {
            let taken = successor::take(&self.journal, &self.vault, &self.replica, now).await?;
            let renewed = taken.is_some();
            taken.into_iter().for_each(|signer| self.signer.store(Arc::new(signer)));
            return Ok(renewed);
        };
        let root = Signer::open(&from_record(&root.record), &self.vault)?;
        let current = sealed(&self.journal, &issuing_name(&self.replica)).await?;
        let named = names(&self.journal, Which::Issuing(&self.replica)).await?;
        let (signer, successor) =
            make_issuing(&root, self.bundle.trust_domain(), &self.vault, named, now)?;
        let mut batch = Batch::default();
        batch.replace(&current, &to_record(&successor));
        match self.journal.commit(batch).await? {
            Commit::Committed { .. } => self.signer.store(Arc::new(signer)),
            Commit::Conflict => return Err(RotationError::Raced),
        }
        self.vault.forget(&from_record(&current.record));
        Ok(true)
    }
}

/// The bundle of this store, if a CA was made in it.
pub async fn read_bundle(journal: &Journal) -> Result<Option<TrustBundle>, RotationError> {
    let Some(entry) = journal.read::<BundleRecord>(CURRENT).await? else {
        return Ok(None);
    };
    let record = entry.record;
    let trust_domain = TrustDomain::parse(&record.trust_domain)
        .map_err(|error| JournalError::Unreadable { key: entry.key, why: error.to_string() })?;
    let roots = record.roots_der.into_iter().map(|der| CertificateDer::from(der.0)).collect();
    Ok(Some(TrustBundle::new(trust_domain, record.generation, roots)?))
}

async fn make_ca(
    journal: &Journal,
    trust_domain: &TrustDomain,
    vault: &Vault,
    lease: &Lease,
    now: UnixSeconds,
) -> Result<TrustBundle, RotationError> {
    let template = IssuerTemplate {
        common_name: format!("Myelin root of {trust_domain}"),
        trust_domain: trust_domain.to_string(),
        serial: fresh_serial()?,
        validity: issuer_validity(ROOT_LIFETIME, now, None),
        path_length: None,
        extensions: names(journal, Which::Root).await?,
    };
    let (root, sealed_root) = Signer::make_root(&template, vault)?;
    check::issuer(root.certificate(), &template, root.certificate())?;
    let bundle = TrustBundle::new(trust_domain.clone(), 1, vec![root.certificate().clone()])?;
    let mut batch = Batch::default();
    let roots_der = vec![Blob(root.certificate().to_vec())];
    let record = BundleRecord { trust_domain: trust_domain.to_string(), generation: 1, roots_der };
    batch.create(CURRENT, &record);
    batch.create(ROOT, &to_record(&sealed_root));
    batch.under(lease);
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(bundle),
        Commit::Conflict => Err(RotationError::RootAwaited(replicas::ROOT_WITHIN)),
    }
}

/// The first intermediate of a replica.
async fn first_issuing(
    journal: &Journal,
    trust_domain: &TrustDomain,
    vault: &Vault,
    replica: &ReplicaId,
    now: UnixSeconds,
) -> Result<Signer, RotationError> {
    let root = from_record(&sealed(journal, ROOT).await?.record);
    let root = Signer::open(&root, vault).map_err(RotationError::OtherSealKey)?;
    let named = names(journal, Which::Issuing(replica)).await?;
    let (signer, sealed) = make_issuing(&root, trust_domain, vault, named, now)?;
    let mut batch = Batch::default();
    batch.create(&issuing_name(replica), &to_record(&sealed));
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(signer),
        Commit::Conflict => Err(RotationError::Raced),
    }
}

fn make_issuing(
    root: &Signer,
    trust_domain: &TrustDomain,
    vault: &Vault,
    extensions: Vec<Extension>,
    now: UnixSeconds,
) -> Result<(Signer, SealedIssuer), RotationError> {
    if root.validity().not_after <= now {
        return Err(RotationError::RootExpired);
    }
    let template = IssuerTemplate {
        common_name: format!("Myelin issuing CA of {trust_domain}"),
        trust_domain: trust_domain.to_string(),
        serial: fresh_serial()?,
        validity: issuer_validity(ISSUING_LIFETIME, now, Some(root.validity())),
        path_length: Some(0),
        extensions,
    };
    let (signer, sealed) = root.make_issuer(&template, vault)?;
    check::issuer(signer.certificate(), &template, root.certificate())?;
    Ok((signer, sealed))
}

/// The extension by which a CA certificate names the log of what it issues.
pub async fn names(journal: &Journal, which: Which<'_>) -> Result<Vec<Extension>, RotationError> {
    let named = log::extension(journal, which).await?;
    Ok(named.into_iter().map(|der| Extension { oid: LOG_OID.to_vec(), der }).collect())
}

fn fresh_serial() -> Result<Serial, RotationError> {
    random::bytes().map(Serial::from_random).map_err(|_| RotationError::NoRandomness)
}

async fn sealed(journal: &Journal, name: &str) -> Result<Entry<IssuerRecord>, RotationError> {
    journal.read(name).await?.ok_or(RotationError::NoCa)
}

fn to_record(sealed: &SealedIssuer) -> IssuerRecord {
    IssuerRecord {
        certificate_der: Blob(sealed.certificate_der.clone()),
        sealed_key: Blob(sealed.sealed_key.clone()),
    }
}

fn from_record(record: &IssuerRecord) -> SealedIssuer {
    SealedIssuer {
        certificate_der: record.certificate_der.0.clone(),
        sealed_key: record.sealed_key.0.clone(),
    }
}

#[cfg(test)]
mod tests;
