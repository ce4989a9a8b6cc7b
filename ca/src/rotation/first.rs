//! What a replica believes at its start: its pin; without one, the store, if what is sealed in
//! there opens under our seal key; with an empty store, a CA that it makes itself.
//!
//! Never: believes a store without a pin and without a key that only we could have sealed.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::{RootId, Rung, SignedStep, TrustBundle, TrustStep};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::issuer_log;

use super::make::{from_record, make_issuing, make_root, names, to_record};
use super::replicas::{self, Turn};
use super::trust::{self, Trust};
use super::{Home, RotationError, open_root};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, BundleRecord, CURRENT, ISSUING, IssuerRecord, Journal, Readable, root_name, step_name,
};
use crate::log::Which;
use crate::replica::ReplicaId;
use crate::signer::{Signer, Vault};
use crate::store::{Commit, Lease};

pub(super) async fn believe(
    journal: &Journal,
    trust_domain: &TrustDomain,
    vault: &Vault,
    home: &Home,
    now: UnixSeconds,
) -> Result<Trust, RotationError> {
    let Home { replica, pin } = home;
    if let Some(pinned) = pin.read()? {
        if journal.page::<BundleRecord>("", None).await.is_ok_and(|records| records.is_empty()) {
            return Err(RotationError::StoreEmptied(pin.path().to_owned()));
        }
        return Ok(Trust::new(pinned));
    }
    let step = match replicas::turn(journal, replica, || trust::current(journal)).await? {
        Turn::There(found) => {
            anchored(journal, &found, vault).await?;
            tracing::info!(
                target: "audit", outcome = "trust_pinned", number = found.step.number,
                bundle = %found.step.bundle.hash(), "this replica has pinned what the store holds"
            );
            found
        }
        Turn::Ours(lease) => {
            let made = make_ca(journal, trust_domain, vault, &lease, now).await;
            journal.release(&lease).await?;
            made?
        }
    };
    pin.write(&step)?;
    Ok(Trust::new(step))
}

/// The first intermediate of a replica.
pub(super) async fn issuing(
    journal: &Journal,
    trust: &Trust,
    vault: &Vault,
    replica: &ReplicaId,
    now: UnixSeconds,
) -> Result<Signer, RotationError> {
    let root = open_root(journal, &trust.step.step.active, vault).await;
    let root = root.map_err(of_shared_key)?;
    let named = names(journal, Which::Issuing(replica)).await?;
    let (signer, sealed) = make_issuing(&root, trust.bundle.trust_domain(), vault, named, now)?;
    let mut batch = Batch::default();
    batch.create(&replicas::issuing_name(replica), &to_record(&sealed));
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(signer),
        Commit::Conflict => Err(RotationError::Raced),
    }
}

/// What every replica opens with the same key did not open.
fn of_shared_key(error: RotationError) -> RotationError {
    match error {
        RotationError::Signer(error) => RotationError::OtherSealKey(error),
        other => other,
    }
}

/// Whether the step is signed by a root of which the store holds what only a holder of our seal key
/// can have put there: its key, or the key of an intermediate below it.
async fn anchored(
    journal: &Journal,
    found: &SignedStep,
    vault: &Vault,
) -> Result<(), RotationError> {
    match open_root(journal, &found.signer, vault).await {
        // A root whose key is here signs its first step too.
        Ok(_) => {}
        Err(RotationError::NoRootKey { .. }) => {
            if !has_sealed_intermediate(journal, found, vault).await? {
                let why = "no sealed key belongs to the root that signed it";
                return Err(RotationError::NoAnchor(why.to_owned()));
            }
            let TrustStep { number, bundle, active, .. } = &found.step;
            let is_first = *number == 1 && bundle.roots().len() == 1 && *active == found.signer;
            if is_first && found.signature.is_empty() {
                // A CA below a root that is elsewhere begins with what its operator gave it.
                return Ok(());
            }
        }
        Err(error) => return Err(of_shared_key(error)),
    }
    let signed = found.signed_under(&found.step.bundle);
    signed.map_err(|why| RotationError::NoAnchor(why.to_string()))
}

async fn has_sealed_intermediate(
    journal: &Journal,
    found: &SignedStep,
    vault: &Vault,
) -> Result<bool, RotationError> {
    for entry in Readable::from(journal.find_all::<IssuerRecord>(ISSUING).await?).entries {
        let Ok(issuing) = Signer::open(&from_record(&entry.record), vault) else { continue };
        let bundle = &found.step.bundle;
        // The root has signed which log counts below it: the record may not say another, or none.
        let stated = issuer_log(issuing.certificate()).ok().flatten();
        if bundle.issuer_of(issuing.certificate()) == Some(found.signer)
            && bundle.stated_log(&found.signer) == stated.as_ref()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn make_ca(
    journal: &Journal,
    trust_domain: &TrustDomain,
    vault: &Vault,
    lease: &Lease,
    now: UnixSeconds,
) -> Result<SignedStep, RotationError> {
    let (root, sealed_root) =
        make_root(trust_domain, vault, names(journal, Which::Root).await?, now)?;
    let bundle = TrustBundle::new(trust_domain.clone(), 1, vec![root.certificate().clone()])?;
    let id = RootId::of(root.certificate());
    let step = TrustStep {
        number: 1,
        bundle,
        rung: Rung::Settled,
        active: id,
        since: now,
        before: [0; 32],
    };
    let signature = root.sign_statement(&step.signed_bytes())?;
    let signed = SignedStep { step, signer: id, signature };
    let record = BundleRecord::from(&signed);
    let mut batch = Batch::default();
    batch.create(CURRENT, &record);
    batch.create(&step_name(1), &record);
    batch.create(&root_name(&id), &to_record(&sealed_root));
    batch.under(lease);
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(signed),
        Commit::Conflict => Err(RotationError::RootAwaited(replicas::ROOT_WITHIN)),
    }
}
