//! The trust anchor of this replica: the last step of the ladder that it believed, in a file of its
//! own data directory. Whatever the store says is measured against it.
//!
//! Never: goes back to an earlier step, or is written before the step is in the store.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use myelin_identity::bundle::SignedStep;

use super::RotationError;
use crate::datadir;
use crate::journal::BundleRecord;

/// Where the anchor lies.
#[derive(Clone, Debug)]
pub struct Pin {
    path: PathBuf,
}

impl Pin {
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pinned step; none before the first start.
    pub(super) fn read(&self) -> Result<Option<SignedStep>, RotationError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(RotationError::Pin { path: self.path.clone(), cause }),
        };
        let damaged = |why| RotationError::PinDamaged { path: self.path.clone(), why };
        let record: BundleRecord =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        SignedStep::try_from(&record).map(Some).map_err(damaged)
    }

    /// Replaces the pin as a whole or not at all, durably.
    pub(super) fn write(&self, step: &SignedStep) -> Result<(), RotationError> {
        let bytes = serde_json::to_vec(&BundleRecord::from(step))
            .expect("a record is a plain structure, which JSON can always hold");
        datadir::replace(&self.path, &bytes)
            .map_err(|cause| RotationError::Pin { path: self.path.clone(), cause })
    }
}
