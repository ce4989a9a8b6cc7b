//! Foreign trust domains: which ones the operator federates with, fetching and refreshing their
//! bundles from their endpoints, and the set of them that sidecars are told. `operator` asks for
//! changes, `app` runs the keeper, `authority` passes the set on.
//!
//! Every change of that set and its epoch are one commit, so that all replicas tell the same.
//!
//! Never: trusts a bundle for another domain than the one it was fetched for, takes a sequence that
//! goes back, or drops the last good bundle because an endpoint fails.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::bundle::{BundleError, ForeignBundle, ForeignBundles, ForeignError};
use myelin_identity::id::{IdError, TrustDomain};

use crate::journal::{CURRENT, FederationEpochRecord, FederationRecord, Journal, JournalError};

mod entry;
mod fetch;
mod judge;
mod keeper;
mod refresh;
mod schedule;

#[cfg(test)]
mod tests;

pub use entry::{AddRequest, add, find, list, remove};
pub use fetch::{FetchError, system_roots};
pub use judge::{Unfit, bundle};
pub use keeper::Keeper;
pub use refresh::{Outcome, RefreshError, refresh};
pub use schedule::{DEFAULT_REFRESH, MAX_REFRESH, MIN_REFRESH};

/// Attempts at one commit: another replica, or an operator, may write the same record meanwhile.
const COMMIT_ATTEMPTS: usize = 5;

/// Readings of epoch and records until both fit together: a commit between them costs one more.
const READ_ATTEMPTS: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{name:?} is no trust domain: {why}; expected a name such as partner.example")]
    Name { name: String, why: IdError },
    #[error("{0} is this CA's own trust domain; name the other one")]
    OwnDomain(TrustDomain),
    #[error("{0} is federated already; to change how, remove it and add it again")]
    Known(TrustDomain),
    #[error("{0} is not federated; see: myelin-ca federation list")]
    Unknown(TrustDomain),
    #[error("the URL {url:?} {why}; expected https://host[:port]/path")]
    Url { url: String, why: &'static str },
    #[error("{flag} {why}")]
    Flag { flag: &'static str, why: String },
    #[error("the bundle of --bundle cannot be used: {0}")]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    #[error("too many changes at this moment; try again")]
    Contended,
}

/// What sidecars are to be told, at the epoch at which it was written.
pub async fn read_set(journal: &Journal) -> Result<ForeignBundles, FederationError> {
    for _ in 0..READ_ATTEMPTS {
        let epoch = epoch(journal).await?;
        let mut bundles = Vec::new();
        for entry in journal.all::<FederationRecord>().await? {
            let name = entry::name(&entry);
            let trust_domain = entry::domain(name)?;
            let unlogged = entry.record.unlogged;
            let Some(held) = entry.record.bundle else { continue };
            let bundle = Arc::new(bundle(trust_domain, &held)?);
            bundles.push(ForeignBundle { bundle, unlogged });
        }
        if self::epoch(journal).await? == epoch {
            return Ok(ForeignBundles::new(epoch, bundles)?);
        }
    }
    Err(FederationError::Contended)
}

async fn epoch(journal: &Journal) -> Result<u64, FederationError> {
    let read = journal.read::<FederationEpochRecord>(CURRENT).await?;
    Ok(read.map_or(0, |entry| entry.record.epoch))
}
