//! Foreign trust domains: which ones the operator federates with, fetching and refreshing their
//! bundles from their endpoints, and the set of them that sidecars are told. `operator` asks for
//! changes, `app` runs the keeper, `authority` passes the set on.
//!
//! Every change of that set and its epoch are one commit, so that all replicas tell the same; what
//! counts of it is under a seal, so that whoever can write the store adds nobody (`roll`).
//!
//! Never: believes a record that no CA of this store put on the roll, trusts a bundle for another
//! domain than the one it was fetched for, takes a sequence that goes back, or drops the last good
//! bundle because an endpoint fails.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::path::PathBuf;

use myelin_identity::bundle::{BundleError, ForeignError};
use myelin_identity::id::{IdError, TrustDomain};
use myelin_identity::seal::SealError;

use crate::journal::JournalError;

mod entry;
mod fetch;
mod judge;
mod keeper;
mod refresh;
mod roll;
mod schedule;
mod seal;

#[cfg(test)]
mod tests;

pub use entry::{AddRequest, add, find, remove};
pub use fetch::{FetchError, system_roots};
pub use judge::{Unfit, bundle};
pub use keeper::Keeper;
pub use refresh::{Outcome, RefreshError, refresh};
pub use roll::{PASSED_OVER_WORDS, PassedOver, Roll, View};
pub use schedule::{DEFAULT_REFRESH, MAX_REFRESH, MIN_REFRESH};

/// Attempts at one commit: another replica, or an operator, may write the same record meanwhile.
const COMMIT_ATTEMPTS: usize = 5;

/// Readings of roll and records until both fit together: a commit between them costs one more.
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
    #[error(
        "the store's record of {name} is not believed ({word}): {why}; remove it, then add it with the bundle that its operators confirm"
    )]
    PassedOver { name: String, word: &'static str, why: String },
    #[error("cannot seal the roll of foreign domains: {0}")]
    Seal(#[from] SealError),
    #[error("cannot use {}: {cause}; it must be ours to read and write", path.display())]
    Pin { path: PathBuf, cause: io::Error },
    #[error(
        "{} is damaged, or was sealed with another seal key; restore it from a backup of this data directory, or remove it if you know that the store is genuine",
        path.display()
    )]
    PinDamaged { path: PathBuf },
    #[error("too many changes at this moment; try again")]
    Contended,
}
