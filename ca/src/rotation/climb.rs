//! One move of the ladder, once it is permitted: the next step, signed by the root that is active
//! before it, with the keys that come or go with it, in one commit.
//!
//! Never: asks whether the move is wise (`ladder` does), or shows a step that is not in the store.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use myelin_identity::bundle::{RootId, Rung, SignedStep, TrustBundle, TrustStep};
use rustls_pki_types::CertificateDer;

use super::ladder::Move;
use super::make::{from_record, make_root, names, to_record};
use super::{Rotation, RotationError, bind};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, BundleRecord, CURRENT, ISSUING, IssuerRecord, JournalError, Readable, Record, root_name,
    step_name,
};
use crate::log::Which;
use crate::signer::{Signer, validity_of};
use crate::store::Commit;
use crate::template::MAX_LIFETIME;

impl Rotation {
    /// Moves the ladder. `step` is the one on which the permit was given.
    pub async fn climb(
        &self,
        asked: Move,
        on: &SignedStep,
        now: UnixSeconds,
    ) -> Result<(), RotationError> {
        // What was read here is what the commit is bound to: the revision first, since another task
        // may take a further step over at any moment. An older one is a conflict, never a step lost.
        self.refresh().await?;
        let looked_at = self.looked_at.load(Ordering::Acquire);
        let trust = self.trust.load_full();
        if *trust.step != *on {
            return Err(RotationError::Moved);
        }
        let before = &trust.step.step;
        let (signer, signed_by) = self.signer_of(asked, before).await?;
        let mut batch = Batch::default();
        let mut roots: Vec<CertificateDer<'static>> = before.bundle.roots().cloned().collect();
        if asked == Move::Prepare {
            let named = names(&self.journal, Which::Root).await?;
            let domain = before.bundle.trust_domain();
            let (root, sealed) = make_root(domain, &self.vault, named, now)?;
            let id = RootId::of(root.certificate());
            batch.create(&root_name(&id), &to_record(&sealed));
            roots.push(root.certificate().clone());
        }
        let plan = plan(asked, before, roots)?;
        let mut retired = None;
        for gone in before.bundle.root_ids().filter(|id| !plan.bundle.holds_root(id)) {
            // A retired root never signs again: its key goes with it.
            match self.journal.read::<IssuerRecord>(&root_name(&gone)).await {
                Ok(Some(key)) => {
                    batch.remove(&key);
                    retired = Some(from_record(&key.record));
                }
                Ok(None) => {}
                // What nobody can use is no reason to keep the root.
                Err(JournalError::Unreadable { .. }) => {
                    batch.erase::<IssuerRecord>(&root_name(&gone));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let step = TrustStep { since: now, before: before.digest(), ..plan };
        let signature = signer.sign_statement(&step.signed_bytes())?;
        let signed = SignedStep { step, signer: signed_by, signature };
        bind(&mut batch, looked_at);
        self.write(&mut batch, &signed).await?;
        match self.journal.commit(batch).await? {
            Commit::Conflict => return Err(RotationError::Moved),
            Commit::Committed { revision } => {
                self.take_over(trust.with(signed))?;
                self.ignore(None);
                retired.iter().for_each(|key| self.vault.forget(key));
                self.looked_at.store(revision, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The key that signs a move: the active root's. Going back from a root whose key cannot be used
    /// is what `abort` is for, and the root that issues again may say so itself: it is trusted too.
    async fn signer_of(
        &self,
        asked: Move,
        before: &TrustStep,
    ) -> Result<(Signer, RootId), RotationError> {
        let active = match self.root(&before.active).await {
            Ok(signer) => return Ok((signer, before.active)),
            Err(error) => error,
        };
        let other = before.bundle.root_ids().find(|id| *id != before.active);
        match other.filter(|_| asked == Move::Abort && before.rung == Rung::Activated) {
            Some(other) => Ok((self.root(&other).await.map_err(|_| active)?, other)),
            None => Err(active),
        }
    }

    /// Replicas whose intermediate is still good and hangs under another root than the active one.
    /// They issue nothing before they have another. What cannot be read may be such a one.
    pub async fn lagging(&self, now: UnixSeconds) -> Result<Lagging, RotationError> {
        let trust = self.trust.load_full();
        let active = trust.step.step.active;
        let found = Readable::from(self.journal.find_all::<IssuerRecord>(ISSUING).await?);
        let mut lagging = Lagging { replicas: Vec::new(), unreadable: found.unreadable };
        for entry in found.entries {
            let certificate = CertificateDer::from(entry.record.certificate_der.0);
            match validity_of(&certificate) {
                Err(_) => lagging.unreadable.push(entry.key),
                Ok(validity) if validity.not_after <= now => {}
                Ok(_) if trust.bundle.issuer_of(&certificate) == Some(active) => {}
                Ok(_) => lagging.replicas.push(replica_of(&entry.key)),
            }
        }
        lagging.replicas.extend(lagging.unreadable.iter().map(|key| replica_of(key)));
        Ok(lagging)
    }

    /// Replicas of whose certificates none is in use any more: a certificate ends with the intermediate
    /// that signed it, or, if another took that one's place since, a life after that at most. By name.
    pub async fn gone(&self, now: UnixSeconds) -> Result<BTreeSet<String>, JournalError> {
        let over = |record: &IssuerRecord| {
            validity_of(&record.certificate_der.0)
                .is_ok_and(|validity| validity.not_after + MAX_LIFETIME.as_secs() <= now)
        };
        let found = Readable::from(self.journal.find_all::<IssuerRecord>(ISSUING).await?);
        let over = found.entries.iter().filter(|entry| over(&entry.record));
        Ok(over.map(|entry| place_of(&entry.key).trim_start_matches('/').to_owned()).collect())
    }

    /// The step under its two names, over whatever somebody may have put there: only a step that
    /// is believed too would stop it.
    async fn write(&self, batch: &mut Batch, signed: &SignedStep) -> Result<(), RotationError> {
        let record = BundleRecord::from(signed);
        for name in [CURRENT.to_owned(), step_name(signed.step.number)] {
            match self.journal.read::<BundleRecord>(&name).await {
                Ok(found) => batch.put(&name, found.as_ref(), &record),
                Err(JournalError::Unreadable { .. }) => batch.overwrite(&name, &record),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The replicas that issue under no root that counts, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lagging {
    pub replicas: Vec<String>,
    /// The keys of those intermediates that cannot be read.
    pub unreadable: Vec<String>,
}

fn replica_of(key: &str) -> String {
    format!("ca-replica{}", place_of(key))
}

/// The key without what all of its kind begin with: a slash and the replica's name.
fn place_of(key: &str) -> &str {
    key.trim_start_matches(IssuerRecord::PREFIX).trim_start_matches(ISSUING)
}

/// What the next step says, apart from when and after what.
fn plan(
    asked: Move,
    before: &TrustStep,
    roots: Vec<CertificateDer<'static>>,
) -> Result<TrustStep, RotationError> {
    let other = before.bundle.root_ids().find(|id| *id != before.active);
    let other = other.unwrap_or(before.active);
    let (rung, active, kept) = match (asked, before.rung) {
        (Move::Prepare, _) => (Rung::Prepared, before.active, roots),
        (Move::Activate, _) | (Move::Abort, Rung::Activated) => (Rung::Activated, other, roots),
        (Move::Retire | Move::Abort, _) => {
            let kept = roots.into_iter().filter(|root| RootId::of(root) == before.active);
            (Rung::Settled, before.active, kept.collect())
        }
    };
    let grown = u64::from(kept.len() != before.bundle.roots().len());
    let generation = before.bundle.generation() + grown;
    let bundle = TrustBundle::new(before.bundle.trust_domain().clone(), generation, kept)?;
    // What is stated of a root is never taken back.
    let stated = before.bundle.stated_logs().filter(|(root, _)| bundle.holds_root(root));
    let stated: Vec<_> = stated.map(|(root, log)| (root, log.clone())).collect();
    Ok(TrustStep {
        number: before.number + 1,
        bundle: bundle.with_stated(stated)?,
        rung,
        active,
        since: before.since,
        before: before.before,
    })
}
