//! A CA whose root's key is on another machine, or somebody else's: how such a CA begins, and what
//! tells it from one that holds its root.
//!
//! Never: puts another root over one that is there; that is the ladder's.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::TrustBundle;

use super::replicas::issuing;
use super::{RotationError, read_bundle};
use crate::journal::{Batch, Blob, BundleRecord, CURRENT, IssuerRecord, Journal, ROOT};
use crate::replica::ReplicaId;
use crate::store::Commit;

/// Whether this store holds the key of its root.
pub async fn holds_root_key(journal: &Journal) -> Result<bool, RotationError> {
    Ok(journal.read::<IssuerRecord>(ROOT).await?.is_some())
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

/// Begins a CA below a root whose key is elsewhere, or sees that this store is of such a CA.
pub async fn adopt(journal: &Journal, adopted: &TrustBundle) -> Result<(), RotationError> {
    if let Some(found) = read_bundle(journal).await? {
        if found.hash() == adopted.hash() {
            return Ok(());
        }
        let (found, given) = (found.hash().to_string(), adopted.hash().to_string());
        return Err(RotationError::OtherRoot { found, given });
    }
    let roots_der = adopted.roots().map(|root| Blob(root.to_vec())).collect();
    let trust_domain = adopted.trust_domain().to_string();
    let mut batch = Batch::default();
    batch.create(CURRENT, &BundleRecord { trust_domain, generation: 1, roots_der });
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(()),
        Commit::Conflict => Err(RotationError::Raced),
    }
}
