//! A log's Ed25519 key: made once, sealed in the store like CA keys, in memory while the CA runs.
//!
//! Never: shown, or used for anything but checkpoints.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use myelin_identity::log::{Checkpoint, LogKey, signature_line};
use myelin_identity::seal::{self, SealKey};

use super::LogError;
use crate::journal::{Batch, Blob, Hex, Journal, LogKeyRecord, Record as _};
use crate::random;
use crate::replica::ReplicaId;
use crate::store::Commit;

/// Bytes of a seed, and of a public key.
const SEED_BYTES: usize = 32;
/// Bytes of the public key's hash in an origin: enough to tell the logs of one trust domain apart.
const MARK_BYTES: usize = 4;

/// Which of a CA's logs. Each replica has an issuing log of its own, as it has an intermediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    Issuing(&'a ReplicaId),
    Root,
}

/// A log's name and the key that signs for it.
pub struct Key {
    /// Of the records in the journal.
    name: String,
    log: LogKey,
    pair: Ed25519KeyPair,
}

impl Which<'_> {
    /// The name of its records in the journal.
    pub fn name(self) -> String {
        match self {
            Self::Issuing(replica) => format!("issuing/{replica}"),
            Self::Root => "root".to_owned(),
        }
    }

    /// What comes between the trust domain and the mark in an origin.
    fn path(self) -> &'static str {
        match self {
            Self::Issuing(_) => "log",
            Self::Root => "root-log",
        }
    }

    /// Bound into the sealed seed, so that another sealed secret cannot be passed off as one.
    fn purpose(self) -> &'static [u8] {
        match self {
            Self::Issuing(_) => b"myelin-ca issuing log key v1",
            Self::Root => b"myelin-ca root log key v1",
        }
    }
}

impl Key {
    pub async fn open_or_make(
        journal: &Journal,
        which: Which<'_>,
        trust_domain: &str,
        seal_key: &SealKey,
    ) -> Result<Self, LogError> {
        if let Some(entry) = journal.read::<LogKeyRecord>(&which.name()).await? {
            return Self::open(&entry.record, which, seal_key);
        }
        let fault = |error: &dyn std::fmt::Display| LogError::Key(error.to_string());
        let seed: [u8; SEED_BYTES] = random::bytes().map_err(|error| fault(&error))?;
        let (_, public) = pair(&seed)?;
        let mark: String = digest(&SHA256, &public).as_ref()[..MARK_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let record = LogKeyRecord {
            origin: format!("{trust_domain}/myelin/{}/{mark}", which.path()),
            public: Hex(public.to_vec()),
            sealed_seed: Blob(
                seal::seal(seal_key, which.purpose(), &seed).map_err(|error| fault(&error))?,
            ),
        };
        let mut batch = Batch::default();
        batch.create(&which.name(), &record);
        match journal.commit(batch).await? {
            Commit::Committed { .. } => Self::open(&record, which, seal_key),
            // Another replica made it at the same moment.
            Commit::Conflict => match journal.read::<LogKeyRecord>(&which.name()).await? {
                Some(entry) => Self::open(&entry.record, which, seal_key),
                None => Err(LogError::Forked),
            },
        }
    }

    /// The public half alone, if the store has this log.
    pub async fn public(journal: &Journal, which: Which<'_>) -> Result<Option<LogKey>, LogError> {
        let entry = journal.read::<LogKeyRecord>(&which.name()).await?;
        entry.map(|entry| named(&entry.record)).transpose()
    }

    /// The logs of this store, each replica's and the root's, by what their records are called.
    pub async fn all(journal: &Journal) -> Result<Vec<(String, LogKey)>, LogError> {
        let records = journal.all::<LogKeyRecord>().await?;
        let name = |key: &str| key.trim_start_matches(LogKeyRecord::PREFIX).to_owned();
        records.iter().map(|entry| Ok((name(&entry.key), named(&entry.record)?))).collect()
    }

    fn open(record: &LogKeyRecord, which: Which<'_>, seal_key: &SealKey) -> Result<Self, LogError> {
        let seed = seal::open(seal_key, which.purpose(), &record.sealed_seed.0)
            .map_err(|error| LogError::Key(error.to_string()))?;
        let (pair, public) = pair(&seed)?;
        if public[..] != record.public.0[..] {
            return Err(LogError::Key("the sealed key is not the one of this log".to_owned()));
        }
        Ok(Self { name: which.name(), log: named(record)?, pair })
    }

    pub fn log(&self) -> &LogKey {
        &self.log
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The signed note of a state that is on disk and in the journal.
    pub(super) fn sign(&self, size: u64, root: myelin_identity::log::Hash) -> Vec<u8> {
        let text = Checkpoint { origin: self.log.name().to_owned(), size, root }.text();
        let signature = self.pair.sign(text.as_bytes());
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        format!("{text}\n{}", signature_line(&self.log, signature)).into_bytes()
    }
}

fn pair(seed: &[u8]) -> Result<(Ed25519KeyPair, [u8; SEED_BYTES]), LogError> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|error| LogError::Key(error.to_string()))?;
    let public = pair.public_key().as_ref().try_into();
    Ok((pair, public.map_err(|_| LogError::Key("a public key has 32 bytes".to_owned()))?))
}

fn named(record: &LogKeyRecord) -> Result<LogKey, LogError> {
    let fault = |why: String| LogError::Damaged { what: "key record".to_owned(), why };
    let public: [u8; SEED_BYTES] =
        record.public.0.as_slice().try_into().map_err(|_| fault("no 32 bytes".to_owned()))?;
    LogKey::new(&record.origin, public).map_err(|error| fault(error.to_string()))
}
