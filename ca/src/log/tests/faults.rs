//! Stores that are older than the log beside them, commits that come late, and what a transaction
//! that fails gives away.
//!
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;

use super::*;
use crate::journal::RootLogProofRecord;
use crate::store::{Changes, Commit, Expect, Lease, Store, StoreError, Versioned, Write};

pub(super) async fn head(place: &Place) -> crate::journal::Entry<LogHeadRecord> {
    let name = Which::Issuing(&replica()).name();
    place.journal.read(&name).await.unwrap().unwrap()
}

pub(super) async fn rewind(place: &Place, record: &LogHeadRecord) {
    let mut batch = Batch::default();
    batch.replace(&head(place).await, record);
    let _ = place.journal.commit(batch).await.unwrap();
}

#[tokio::test]
async fn store_that_was_restored_beside_a_newer_log_is_refused_and_nothing_is_overwritten() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..3).await;
    let older = head(&place).await.record;
    fill(&log, 3..5).await;
    let newest = head(&place).await.record;
    drop(log);
    let signed = fs::read(place.file("checkpoint")).unwrap();
    let another = LogHeadRecord { root: Hex(vec![9; 32]), ..newest.clone() };
    for restored in [&older, &another] {
        rewind(&place, restored).await;
        let refused = place.try_log().await.err().unwrap();
        assert!(matches!(refused, LogError::Newer { signed: 5, .. }), "{refused}");
        assert!(refused.to_string().contains("replica.id"), "{refused}");
        assert_eq!(fs::read(place.file("checkpoint")).unwrap(), signed);
    }
    rewind(&place, &newest).await;
    fill(&place.log().await, 5..6).await;
    assert_eq!(place.replay().await.damages, Vec::<String>::new());
}

/// The id was removed and the log was not.
#[tokio::test]
async fn log_of_another_replica_is_not_overwritten() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..3).await;
    drop(log);
    let seal_key = SealKey::from_bytes([1; 32]);
    let begins = || async {
        let other = ReplicaId::from_bytes([8; 8]);
        let which = Which::Issuing(&other);
        let key = Key::open_or_make(&place.journal, which, "td", &seal_key).await.unwrap();
        let metrics = crate::metrics::Metrics::new().unwrap().log;
        IssuingLog::start(place.dir.path(), place.journal.clone(), key, metrics).await
    };
    let refused = begins().await.err().unwrap();
    assert!(matches!(refused, LogError::Another(_)), "{refused}");
    assert_eq!(place.replay().await.damages, Vec::<String>::new());
    fs::remove_dir_all(place.dir.path().join(DIRECTORY)).unwrap();
    fill(&begins().await.unwrap(), 0..1).await;
}

type Asked = (Vec<Expect>, Vec<Write>);

/// Loses one commit, which happens right before the next one that changes anything.
#[derive(Clone)]
struct Late {
    inner: Embedded,
    lose: Arc<AtomicBool>,
    lost: Arc<Mutex<Option<Asked>>>,
}

impl Late {
    async fn changes(&self, writes: &[Write]) -> bool {
        for write in writes {
            let Write::Put(key, value) = write else { return true };
            if self.inner.read(key).await.unwrap().is_none_or(|now| now.value != *value) {
                return true;
            }
        }
        false
    }

    async fn commit_now(
        self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> Result<Commit, StoreError> {
        if self.lose.swap(false, Ordering::Relaxed) {
            *self.lost.lock().unwrap() = Some((expects, writes));
            let last = "its answer is lost".to_owned();
            return Err(StoreError::Unreachable { what: "a commit", members: 1, last });
        }
        if self.changes(&writes).await {
            let lost = self.lost.lock().unwrap().take();
            if let Some((expects, writes)) = lost {
                let _ = self.inner.commit(expects, writes).await?;
            }
        }
        self.inner.commit(expects, writes).await
    }
}

impl Store for Late {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        self.inner.read(key)
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Versioned>>, StoreError>> {
        self.inner.read_many(keys)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        self.inner.list(prefix, after, bound)
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        Box::pin(self.clone().commit_now(expects, writes))
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.revision()
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        self.inner.watch(prefix, after)
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreError>> {
        self.inner.acquire(name, holder, ttl)
    }

    fn keep<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.inner.keep(lease)
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.release(lease)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[tokio::test]
async fn commit_that_comes_after_its_files_were_overwritten_is_no_part_of_the_log() {
    for restart in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let inner = Embedded::open(&dir.path().join("store.redb")).unwrap();
        let late = Late { inner, lose: Arc::default(), lost: Arc::default() };
        let place = Place { dir, journal: Journal::new(Arc::new(late.clone())) };
        let mut log = place.log().await;
        fill(&log, 0..3).await;
        late.lose.store(true, Ordering::Relaxed);
        let refused = log.append(entry(3)).await.unwrap_err();
        assert_eq!(refused.word(), "log_failed");
        if restart {
            drop(log);
            log = place.log().await;
        }
        let inclusion = log.append(entry(4)).await.unwrap();
        assert!(late.lost.lock().unwrap().is_none(), "it came");
        assert_eq!(inclusion.index, 3);
        assert!(holds(log.key(), &entry(4), &inclusion));
        fill(&log, 5..9).await;
        assert_eq!(place.replay().await.damages, Vec::<String>::new());
    }
}

/// The words of a transaction that fails stay in a store's own log, for whoever reads its disk.
#[tokio::test]
async fn root_log_hands_the_store_no_signature() {
    let place = Place::new();
    let root = place.root().await;
    for n in 0..3_u8 {
        let inclusion = root.enter(&[n; 100], b"root").await.unwrap();
        let records = place.journal.all::<RootLogProofRecord>().await.unwrap();
        let record = records.iter().find(|found| found.record.index == u64::from(n));
        let record = &record.unwrap().record;
        let checkpoint = Checkpoint::open(&inclusion.checkpoint, root.key()).unwrap();
        assert_eq!(hex(&checkpoint.root), record.root);
        assert!(holds(root.key(), &entry_of(&[n; 100], b"root"), &inclusion));
    }
    let inner = Embedded::open(&place.dir.path().join("other.redb")).unwrap();
    let late = Late { inner, lose: Arc::default(), lost: Arc::default() };
    let elsewhere =
        Place { dir: tempfile::tempdir().unwrap(), journal: Journal::new(Arc::new(late.clone())) };
    let root = elsewhere.root().await;
    late.lose.store(true, Ordering::Relaxed);
    root.enter(&[7; 100], b"root").await.unwrap_err();
    let (_, writes) = late.lost.lock().unwrap().take().unwrap();
    for write in writes {
        let Write::Put(key, value) = write else { panic!() };
        let value: serde_json::Value = serde_json::from_slice(&value).unwrap();
        let fields: Vec<&String> = value["record"].as_object().unwrap().keys().collect();
        let unsigned = ["entry", "index", "path", "peaks", "root", "size"];
        assert!(fields.iter().all(|field| unsigned.contains(&field.as_str())), "{key}: {fields:?}");
    }
}
