//! A CA whose root's key is on another machine, or somebody else's: how such a CA begins, and what
//! tells it from one that holds its root.
//!
//! Never: puts another root over one that is there; that is the ladder's.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::{Rung, SignedStep, TrustBundle, TrustStep};

use super::replicas::issuing;
use super::{Pin, RotationError, read_bundle, trust};
use crate::journal::{Batch, BundleRecord, CURRENT, IssuerRecord, Journal, root_name, step_name};
use crate::replica::ReplicaId;
use crate::store::Commit;

/// Whether this store holds the key of its root.
pub async fn holds_root_key(journal: &Journal) -> Result<bool, RotationError> {
    let Some(current) = trust::current(journal).await? else { return Ok(false) };
    let name = root_name(&current.step.active);
    Ok(journal.read::<IssuerRecord>(&name).await?.is_some())
}

/// The bundle of a CA that holds no root key, if this replica has no intermediate yet either.
pub async fn waits_for_issuer(
    journal: &Journal,
    replica: &ReplicaId,
) -> Result<Option<TrustBundle>, RotationError> {
    let bundle = read_bundle(journal).await?;
    if bundle.is_none() || holds_root_key(journal).await? {
        return Ok(None);
    }
    let own = issuing(journal, replica).await?;
    Ok(bundle.filter(|_| own.is_none()))
}

/// Begins a CA below a root whose key is elsewhere, or sees that this store is of such a CA. The
/// bundle states the root's log, which this CA keeps, and from then on it counts below that root.
/// Yields the step that was judged, or written: that one and no later look at the store is what the
/// operator's file vouches for.
pub async fn adopt(journal: &Journal, adopted: &TrustBundle) -> Result<Adopted, RotationError> {
    if let Some(step) = trust::current(journal).await? {
        let found = &step.step.bundle;
        if found.only_adds_logs_to(adopted) {
            return Ok(Adopted(step));
        }
        let (found, given) = (found.hash().to_string(), adopted.hash().to_string());
        return Err(RotationError::OtherRoot { found, given });
    }
    let active = adopted.root_ids().next().expect("a bundle has at least one root");
    let step = TrustStep {
        number: 1,
        bundle: adopted.clone(),
        rung: Rung::Settled,
        active,
        since: 0,
        before: [0; 32],
    };
    // Nobody can sign it here: what vouches for it is the operator's file, and each replica's pin.
    let signed = SignedStep { step, signer: active, signature: Vec::new() };
    let record = BundleRecord::from(&signed);
    let mut batch = Batch::default();
    batch.create(CURRENT, &record);
    batch.create(&step_name(1), &record);
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(Adopted(signed)),
        Commit::Conflict => Err(RotationError::Raced),
    }
}

/// The step that an operator's file vouches for.
#[derive(Debug)]
pub struct Adopted(SignedStep);

impl Adopted {
    /// Pins it, for a replica that has no pin yet.
    pub fn pin(&self, pin: &Pin) -> Result<(), RotationError> {
        match pin.read()? {
            None => pin.write(&self.0),
            Some(_) => Ok(()),
        }
    }
}
