//! Several replicas on one store: the first makes the root under a lease while the others wait, and
//! each has an issuing intermediate of its own. Called by `rotation` at start.
//!
//! Never: touches another replica's intermediate.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RotationError;
use crate::journal::{Batch, Entry, ISSUING, IssuerRecord, Journal};
use crate::replica::ReplicaId;
use crate::store::{Commit, Lease};

/// Name of the lease under which a store gets its root.
const MAKING_ROOT: &str = "root";
/// Making a root takes milliseconds, or seconds in an HSM; whoever dies over it holds up the others
/// for this long.
const ROOT_LEASE: Duration = Duration::from_secs(30);
/// How often those who wait look again: a start that is late by this much is no harm.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for another replica's root: two of its leases.
pub(super) const ROOT_WITHIN: Duration = Duration::from_secs(60);

/// What to do about a store that may have no root yet.
pub(super) enum Turn<T> {
    /// It is there.
    There(T),
    /// It is ours to make; commit under this lease, then give it back.
    Ours(Lease),
}

/// Waits until `look` finds what only one replica may make, or until it is this one's to make.
pub(super) async fn turn<T, F>(
    journal: &Journal,
    replica: &ReplicaId,
    look: impl Fn() -> F,
) -> Result<Turn<T>, RotationError>
where
    F: Future<Output = Result<Option<T>, RotationError>>,
{
    let deadline = Instant::now() + ROOT_WITHIN;
    loop {
        if let Some(there) = look().await? {
            return Ok(Turn::There(there));
        }
        if let Some(lease) = journal.lease(MAKING_ROOT, &replica.to_string(), ROOT_LEASE).await? {
            // Whoever held it before may have made it since we looked.
            let Some(there) = look().await? else { return Ok(Turn::Ours(lease)) };
            journal.release(&lease).await?;
            return Ok(Turn::There(there));
        }
        if Instant::now() >= deadline {
            return Err(RotationError::RootAwaited(ROOT_WITHIN));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Under which name this replica's intermediate is kept.
pub fn issuing_name(replica: &ReplicaId) -> String {
    format!("{ISSUING}/{replica}")
}

/// This replica's intermediate, if it has one. The one of a store from before there were replicas
/// becomes its own.
pub(super) async fn issuing(
    journal: &Journal,
    replica: &ReplicaId,
) -> Result<Option<Entry<IssuerRecord>>, RotationError> {
    let name = issuing_name(replica);
    if let Some(own) = journal.read(&name).await? {
        return Ok(Some(own));
    }
    let Some(former) = journal.read::<IssuerRecord>(ISSUING).await? else { return Ok(None) };
    let mut batch = Batch::default();
    batch.create(&name, &former.record);
    batch.remove(&former);
    match journal.commit(batch).await? {
        Commit::Committed { .. } => Ok(journal.read(&name).await?),
        Commit::Conflict => Ok(None),
    }
}
