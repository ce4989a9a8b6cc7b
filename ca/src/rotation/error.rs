//! Why the CA's keys cannot be opened, renewed or rotated: each with who has to do what.
//!
//! Never: a key, or anything of one.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::path::PathBuf;

use myelin_identity::bundle::BundleError;

use super::ladder::Refusal;
use crate::check::Mismatch;
use crate::journal::JournalError;
use crate::log::LogError;
use crate::signer::SignerError;

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
    #[error(
        "the key of root {root} is not in the store, so nothing can be signed with it; use it where it is kept"
    )]
    NoRootKey { root: String },
    #[error(
        "the store holds the key of another root than {root}; somebody changed it: restore the store from a backup"
    )]
    OtherRootKey { root: String },
    #[error("cannot use the trust pin {}: {cause}; it must be ours to read and write", path.display())]
    Pin { path: PathBuf, cause: io::Error },
    #[error(
        "the trust pin {} cannot be read: {why}; restore it from a backup of this data directory, or remove it if you know that the store is genuine", path.display()
    )]
    PinDamaged { path: PathBuf, why: String },
    #[error(
        "the store holds no CA, but {} says that it held one: it is the wrong store, or it was emptied; restore it from a backup", .0.display()
    )]
    StoreEmptied(PathBuf),
    #[error(
        "the store's trust record cannot be believed ({0}) and this replica has no trust pin of its own; restore the store from a backup"
    )]
    NoAnchor(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("somebody else moved the ladder at the same moment; see `myelin-ca rotate status`")]
    Moved,
}
