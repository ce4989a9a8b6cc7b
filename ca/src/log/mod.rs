//! The log of what this CA issues: every certificate is in it, on disk and under a signed
//! checkpoint, before anybody holds the certificate. `authority` calls it between signing and
//! handing out; the ops port serves its files; `rotation` asks for the names that go into CA
//! certificates.
//!
//! Two logs. The *issuing log* of SVIDs is a directory of tiles, and the journal holds how far it
//! has grown. The *root's log* of intermediates is small and lies in the store, so that all replicas
//! share it. docs/LOG.md has the formats.
//!
//! Never: signs a checkpoint whose entries are not on disk and whose head is not in the journal,
//! changes an entry, or holds a CA key.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use myelin_identity::log::{Inclusion, LogKey, LogProof, Resource, entry_of, named_log_extension};
use myelin_identity::seal::SealKey;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::journal::{Hex, Journal, JournalError, LogPlace};
use crate::metrics::LogMetrics;
use crate::replica::ReplicaId;
use witness::Witnesses;

mod disk;
mod edge;
mod key;
mod root;
mod sequencer;
mod shared;
mod verify;
pub mod witness;

pub use disk::DIRECTORY;
pub use key::{Key, Which};
pub use root::RootLog;
pub use shared::Published;
pub use verify::{
    About, Claim, Findings, Head, LogAnswer, LogAsk, Page, Progress, RootFound, Unrecorded, answer,
    verify,
};

/// Entries that wait for the batch before theirs: over a second of issues at full speed. Beyond it,
/// callers are told to come again.
pub const MAX_WAITING: usize = 4096;
/// How long an append may take, the journal's commit included: below the deadline of a request.
pub const APPEND_DEADLINE: Duration = Duration::from_secs(8);

/// Why a certificate could not be logged, or a log not be read. Whoever sees it hands nothing out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The machine.
    #[error(
        "cannot write the log: {0}; free or repair the disk that holds the data directory, then it goes on by itself"
    )]
    Disk(String),
    #[error("cannot write down how far the log has grown: {0}")]
    Journal(String),
    /// Load.
    #[error("{MAX_WAITING} certificates wait for the log already; try again")]
    Busy,
    #[error("the log did not answer within {} s; is its disk slow?", APPEND_DEADLINE.as_secs())]
    Slow,
    /// Somebody has changed files or the store.
    #[error(
        "the log's {what} is damaged: {why}; restore the log directory from a copy, see docs/operate/log.md"
    )]
    Damaged { what: String, why: String },
    #[error(
        "the log here is signed at {signed} entries, which the store, at {known}, does not know of: the store is an older one, restored perhaps, and going on would sign a second history; move log/ and replica.id out of the data directory: this replica then begins a log of its own, see docs/operate/log.md"
    )]
    Newer { signed: u64, known: u64 },
    #[error(
        "log/ holds another log, {0:?}, and this replica has none yet; move it out of the data directory: it may be the only copy"
    )]
    Another(String),
    #[error(
        "another process appended to this log: two servers with one log; see docs/operate/log.md before you remove anything"
    )]
    Forked,
    #[error(
        "cannot open the log's key: {0}; all replicas share one seal key: name the one that this store was made with by --seal-key-file"
    )]
    Key(String),
    /// The witnesses, or the network before them.
    #[error(
        "{found} of {required} witnesses have cosigned the log's checkpoint, so nothing under it is handed out; `myelin_ca_log_witness_answers_total` says what they answer: it goes on by itself"
    )]
    Unwitnessed { found: usize, required: usize },
    #[error("no entry {index} in a log of {size}")]
    NoSuchEntry { index: u64, size: u64 },
    #[error("the server answered another question; use its version of myelin-ca")]
    OtherAnswer,
    #[error("the log has ended; the process is shutting down")]
    Ended,
}

impl LogError {
    /// One word of a closed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Disk(_) | Self::Journal(_) | Self::Slow | Self::OtherAnswer | Self::Ended => {
                "log_failed"
            }
            Self::Busy => "log_busy",
            Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Another(_)
            | Self::NoSuchEntry { .. }
            | Self::Key(_) => "log_damaged",
            Self::Forked => "log_forked",
            Self::Unwitnessed { .. } => "log_witnesses_missing",
        }
    }
}

impl From<JournalError> for LogError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// The log of SVIDs. Clones are the same log; it ends with the last of them.
#[derive(Clone)]
pub struct IssuingLog {
    shared: Arc<shared::Shared>,
    queue: mpsc::Sender<sequencer::Waiting>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl IssuingLog {
    /// Opens the log in this data directory, or begins it; sees that files and journal agree on
    /// its right edge, which takes four small files however long the log is.
    pub async fn start(
        data: &Path,
        journal: Journal,
        key: Key,
        metrics: LogMetrics,
    ) -> Result<Self, LogError> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (shared, sequencer) = sequencer::open(data, journal, key, metrics).await?;
        let task = tokio::spawn(sequencer.run(waiting));
        Ok(Self { shared, queue, task: Arc::new(Mutex::new(Some(task))) })
    }

    /// Takes nothing more, finishes what waits, and lets go of the store.
    pub async fn close(&self) {
        self.shared.close();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // It ends by itself; if it was cut, there is nothing left to wait for.
            let _ = task.await;
        }
    }

    /// The name and key under which this log signs.
    pub fn key(&self) -> &LogKey {
        self.shared.key()
    }

    /// From now on witnesses are asked about each checkpoint, this one first.
    pub fn ask(&self, witnesses: &Witnesses, metrics: &LogMetrics) {
        self.shared.ask(witnesses, metrics);
    }

    /// Appends; resolves when the entry is on disk and under a checkpoint, with the cosignatures
    /// that are required.
    pub async fn append(&self, entry: Vec<u8>) -> Result<Inclusion, LogError> {
        self.append_entry(entry, true).await
    }

    async fn append_entry(&self, entry: Vec<u8>, witnessed: bool) -> Result<Inclusion, LogError> {
        let (answer, answered) = oneshot::channel();
        let waiting = sequencer::Waiting { entry: Bytes::from(entry), witnessed, answer };
        self.queue.try_send(waiting).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => LogError::Busy,
            mpsc::error::TrySendError::Closed(_) => LogError::Ended,
        })?;
        match timeout(APPEND_DEADLINE, answered).await {
            Ok(Ok(logged)) => logged,
            Ok(Err(_)) => Err(LogError::Ended),
            Err(_) => Err(LogError::Slow),
        }
    }

    /// The place of an older entry under the newest checkpoint.
    pub async fn prove(&self, index: u64, entry: &[u8]) -> Result<Inclusion, LogError> {
        let (shared, entry) = (self.shared.clone(), entry.to_vec());
        let proven = tokio::task::spawn_blocking(move || shared.prove(index, &entry));
        proven.await.unwrap_or(Err(LogError::Ended))
    }

    /// The newest checkpoint.
    pub fn published(&self) -> Arc<Published> {
        self.shared.published()
    }

    /// A file of the log, if the newest checkpoint covers it.
    pub async fn read(&self, resource: Resource) -> Result<Option<Bytes>, LogError> {
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || shared.read(resource));
        read.await.unwrap_or(Err(LogError::Ended))
    }
}

/// Both logs of one CA, as `authority` uses them.
pub struct Logs {
    pub issuing: IssuingLog,
    pub root: RootLog,
    /// Whose the issuing log is.
    replica: String,
    /// The intermediate that was asked for last, and its place: one signs for weeks.
    last: Mutex<Option<(Vec<u8>, Inclusion)>>,
}

impl Logs {
    /// Opens both, and makes their keys where there are none yet: before the first CA certificate,
    /// which names them.
    pub async fn start(
        data: &Path,
        journal: &Journal,
        seal_key: &SealKey,
        trust_domain: &str,
        replica: &ReplicaId,
        metrics: LogMetrics,
    ) -> Result<Self, LogError> {
        // All replicas share the root's log. Its key says whether the seal key is the right one,
        // before a key of our own is sealed with it for good.
        let key = Key::open_or_make(journal, Which::Root, trust_domain, seal_key).await?;
        let root = RootLog::new(journal.clone(), key);
        let which = Which::Issuing(replica);
        let key = Key::open_or_make(journal, which, trust_domain, seal_key).await?;
        let issuing = IssuingLog::start(data, journal.clone(), key, metrics).await?;
        Ok(Self { issuing, root, replica: replica.to_string(), last: Mutex::new(None) })
    }

    /// From now on these witnesses are asked about both logs.
    pub fn ask(&self, witnesses: &Witnesses, metrics: &LogMetrics) {
        self.issuing.ask(witnesses, metrics);
        self.root.ask(witnesses, metrics);
    }

    /// Whether a certificate is in the issuing log that is here.
    pub fn is_ours(&self, place: &LogPlace) -> bool {
        place.replica == self.replica
    }

    /// Logs a certificate and yields its place and the proof that travels with it. Its issuer is in
    /// the root's log at `issuer`.
    pub async fn log(
        &self,
        certificate_der: &[u8],
        issuer_der: &[u8],
        issuer: Inclusion,
    ) -> Result<(LogPlace, Vec<u8>), LogError> {
        let leaf = self.issuing.append(entry_of(certificate_der, issuer_der)).await?;
        let place = LogPlace { replica: self.replica.clone(), index: leaf.index };
        Ok((place, together(leaf, issuer)?))
    }

    /// Logs a certificate whose proof nobody will show, and so without waiting for witnesses: the
    /// CA starts, and says what is wrong, also while they are away.
    pub async fn log_unproven(
        &self,
        certificate_der: &[u8],
        issuer_der: &[u8],
        root_der: &[u8],
    ) -> Result<LogPlace, LogError> {
        self.root.enter(issuer_der, root_der).await?;
        let entry = entry_of(certificate_der, issuer_der);
        let leaf = self.issuing.append_entry(entry, false).await?;
        Ok(LogPlace { replica: self.replica.clone(), index: leaf.index })
    }

    /// The proof of a certificate that was logged before, under the newest checkpoints.
    pub async fn proof_again(
        &self,
        index: u64,
        certificate_der: &[u8],
        issuer_der: &[u8],
        issuer: Inclusion,
    ) -> Result<Vec<u8>, LogError> {
        let entry = entry_of(certificate_der, issuer_der);
        together(self.issuing.prove(index, &entry).await?, issuer)
    }

    /// The place of an intermediate, if it is the one that was entered or asked for last: its path
    /// to the root was verified then.
    pub fn known_issuer(&self, issuer_der: &[u8]) -> Option<Inclusion> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().filter(|(known, _)| known == issuer_der);
        known.map(|(_, place)| self.root.dressed(place.clone()))
    }

    /// The intermediate whose certificate has this SHA-256, out of the root's log.
    pub async fn issuer(&self, sha256: &Hex) -> Result<Vec<u8>, LogError> {
        self.root.certificate(sha256).await
    }

    /// Enters an intermediate of this root into the root's log, if it is not there yet, and yields
    /// its place.
    pub async fn enter_issuer(
        &self,
        issuer_der: &[u8],
        root_der: &[u8],
    ) -> Result<Inclusion, LogError> {
        let place = self.root.enter_witnessed(issuer_der, root_der).await?;
        let kept = (issuer_der.to_vec(), place.clone());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(self.root.dressed(place))
    }
}

fn together(leaf: Inclusion, issuer: Inclusion) -> Result<Vec<u8>, LogError> {
    LogProof { leaf, issuer }
        .encode()
        .map_err(|error| LogError::Damaged { what: "proof".to_owned(), why: error.to_string() })
}

/// The value of the extension that names a log in the certificate of its CA: the root's log in a
/// root, the issuing log in an intermediate. `None`: this store has no such log.
pub async fn extension(journal: &Journal, which: Which<'_>) -> Result<Option<Vec<u8>>, LogError> {
    Ok(Key::public(journal, which).await?.map(|log| named_log_extension(&log)))
}

fn hex(hash: &myelin_identity::log::Hash) -> Hex {
    Hex(hash.as_bytes().to_vec())
}

#[cfg(test)]
mod tests;
