//! Appending, restarts and crashes of the issuing log, the root's log, and what a replay finds.
//!
//! Never: another implementation of the formats; that one reads a served log in the workspace's
//! `tests`.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::log::{Checkpoint, decode_bundle, leaf_hash, verify_inclusion};

use super::*;
use crate::journal::{Batch, Blob, LogHeadRecord, RootLogRecord};
use crate::store::Commit;
use crate::store::embedded::Embedded;

mod faults;
mod replay;

struct Place {
    dir: tempfile::TempDir,
    journal: Journal,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
        Self { dir, journal: Journal::new(Arc::new(store)) }
    }

    async fn try_log(&self) -> Result<IssuingLog, LogError> {
        let seal_key = SealKey::from_bytes([1; 32]);
        let which = Which::Issuing(&replica());
        let key = Key::open_or_make(&self.journal, which, "td", &seal_key).await?;
        let metrics = crate::metrics::Metrics::new().unwrap().log;
        IssuingLog::start(self.dir.path(), self.journal.clone(), key, metrics).await
    }

    async fn log(&self) -> IssuingLog {
        self.try_log().await.unwrap()
    }

    async fn root(&self) -> RootLog {
        let seal_key = SealKey::from_bytes([1; 32]);
        let key = Key::open_or_make(&self.journal, Which::Root, "td", &seal_key).await.unwrap();
        RootLog::new(self.journal.clone(), key)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(DIRECTORY).join(name)
    }

    fn flip(&self, name: &str) {
        let mut bytes = fs::read(self.file(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(self.file(name), bytes).unwrap();
    }

    async fn replay(&self) -> Findings {
        let ask = async |question| answer(&self.journal, &question).await;
        verify(self.dir.path(), &replica(), 0, ask, |_| {}).await.unwrap()
    }
}

fn replica() -> ReplicaId {
    ReplicaId::from_bytes([7; 8])
}

fn entry(n: u64) -> Vec<u8> {
    entry_of(&[b"certificate ", n.to_string().as_bytes()].concat(), b"issuer")
}

async fn fill(log: &IssuingLog, numbers: std::ops::Range<u64>) -> Vec<(Vec<u8>, Inclusion)> {
    let appends = numbers.map(|n| async move { (entry(n), log.append(entry(n)).await.unwrap()) });
    futures_util::future::join_all(appends).await
}

fn holds(log: &LogKey, entry: &[u8], place: &Inclusion) -> bool {
    let checkpoint = Checkpoint::open(&place.checkpoint, log).unwrap();
    let leaf = leaf_hash(entry);
    verify_inclusion(&leaf, place.index, checkpoint.size, &place.path, &checkpoint.root)
}

#[tokio::test]
async fn what_is_appended_is_proven_at_once_and_after_a_restart() {
    let place = Place::new();
    let log = place.log().await;
    let mut all = fill(&log, 0..700).await;
    all.extend(fill(&log, 700..705).await);
    for (entry, inclusion) in &all {
        assert!(holds(log.key(), entry, inclusion), "{}", inclusion.index);
    }
    let mut indices: Vec<u64> = all.iter().map(|(_, inclusion)| inclusion.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..705).collect::<Vec<_>>());
    let before = log.published();
    drop(log);
    let log = place.log().await;
    assert_eq!(log.published(), before);
    for (entry, inclusion) in all.iter().step_by(50) {
        let again = log.prove(inclusion.index, entry).await.unwrap();
        assert!(holds(log.key(), entry, &again));
        let wrong = log.prove(inclusion.index, b"another").await.unwrap_err();
        assert_eq!(wrong.word(), "log_damaged");
    }
    assert!(matches!(log.prove(705, b"").await, Err(LogError::NoSuchEntry { .. })));
    fill(&log, 705..800).await;
    let found = place.replay().await;
    assert_eq!((found.entries, found.damages), (800, Vec::new()));
}

#[tokio::test]
async fn files_beyond_the_journals_head_are_no_part_of_the_log() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..250).await;
    drop(log);
    // What a crash between the files and the journal leaves.
    for name in ["tile/0/000.p/251", "tile/0/000", "tile/entries/000", "tile/1/000.p/1"] {
        fs::create_dir_all(place.file(name).parent().unwrap()).unwrap();
        fs::write(place.file(name), b"torn").unwrap();
    }
    let log = place.log().await;
    assert_eq!(log.published().size, 250);
    let beyond = Resource::parse("tile/0/000").unwrap();
    assert_eq!(log.read(beyond).await.unwrap(), None);
    for (entry, inclusion) in fill(&log, 250..300).await {
        assert!(holds(log.key(), &entry, &inclusion));
    }
    assert_eq!(log.read(beyond).await.unwrap().unwrap().len(), 8192);
    assert_eq!(place.replay().await.damages, Vec::<String>::new());
}

#[tokio::test]
async fn disk_that_fails_hands_nothing_out_and_the_log_goes_on_when_it_is_back() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..3).await;
    let (tiles, aside) = (place.file("tile"), place.file("aside"));
    fs::rename(&tiles, &aside).unwrap();
    fs::write(&tiles, b"no directory").unwrap();
    let refused = log.append(entry(3)).await.unwrap_err();
    assert_eq!(refused.word(), "log_failed");
    assert_eq!(log.published().size, 3);
    fs::remove_file(&tiles).unwrap();
    fs::rename(&aside, &tiles).unwrap();
    let inclusion = log.append(entry(4)).await.unwrap();
    assert_eq!(inclusion.index, 3);
    assert!(holds(log.key(), &entry(4), &inclusion));
    assert_eq!(place.replay().await.damages, Vec::<String>::new());
}

#[tokio::test]
async fn second_process_on_one_log_is_refused_and_forks_nothing() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..2).await;
    let name = Which::Issuing(&replica()).name();
    let head = place.journal.read::<LogHeadRecord>(&name).await.unwrap().unwrap();
    let mut batch = Batch::default();
    let other = LogHeadRecord { size: 3, root: Hex(vec![9; 32]), peaks: Vec::new() };
    batch.replace(&head, &other);
    let _ = place.journal.commit(batch).await.unwrap();
    for _ in 0..2 {
        let refused = log.append(entry(2)).await.unwrap_err();
        assert!(matches!(refused.word(), "log_forked" | "log_damaged"), "{refused}");
    }
    assert_eq!(log.published().size, 2);
}

#[tokio::test]
async fn damaged_right_edge_is_named_and_not_served() {
    for name in ["tile/0/001.p/3", "tile/1/000.p/1", "tile/entries/001.p/3"] {
        let place = Place::new();
        let log = place.log().await;
        fill(&log, 0..259).await;
        drop(log);
        assert!(place.file(name).exists(), "{name}");
        place.flip(name);
        let refused = place.try_log().await.err().unwrap();
        assert_eq!(refused.word(), "log_damaged", "{name}: {refused}");
    }
}

#[tokio::test]
async fn log_that_was_rolled_back_alone_is_not_served() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..5).await;
    drop(log);
    fs::remove_dir_all(place.dir.path().join(DIRECTORY)).unwrap();
    let refused = place.try_log().await.err().unwrap();
    assert_eq!(refused.word(), "log_damaged");
    assert!(refused.to_string().contains("tile/0/000.p/5"), "{refused}");
}

#[tokio::test]
async fn intermediates_are_entered_once_and_replicas_share_the_roots_log() {
    let place = Place::new();
    let (one, two) = (place.root().await, place.root().await);
    let certificates: Vec<Vec<u8>> = (0..12_u8).map(|n| vec![n; 100]).collect();
    let enters = certificates.iter().enumerate().map(|(n, certificate)| {
        let log = if n % 2 == 0 { &one } else { &two };
        log.enter(certificate, b"root")
    });
    let places: Vec<Inclusion> = futures_util::future::try_join_all(enters).await.unwrap();
    for (certificate, inclusion) in certificates.iter().zip(&places) {
        assert!(holds(one.key(), &entry_of(certificate, b"root"), inclusion));
        assert_eq!(two.enter(certificate, b"root").await.unwrap(), *inclusion);
    }
    let note = one.read(Resource::Checkpoint).await.unwrap().unwrap();
    assert_eq!(Checkpoint::open(&note, two.key()).unwrap().size, 12);
    let bundle = one.read(Resource::Entries { index: 0, width: 12 }).await.unwrap().unwrap();
    let entries = decode_bundle(&bundle).unwrap();
    let tile = one.read(Resource::parse("tile/0/000.p/12").unwrap()).await.unwrap().unwrap();
    let hashes: Vec<u8> = entries.iter().flat_map(|entry| leaf_hash(entry).0).collect();
    assert_eq!(tile, hashes);
    assert_eq!(one.read(Resource::parse("tile/0/000.p/13").unwrap()).await.unwrap(), None);
    assert_eq!(root::verify(&place.journal).await.unwrap(), 12);
}

#[tokio::test]
async fn intermediate_comes_back_by_its_hash_and_no_other_for_it() {
    let place = Place::new();
    let root = place.root().await;
    let certificates: [&[u8]; 2] = [b"the first", b"the second"];
    for certificate in certificates {
        root.enter(certificate, b"root").await.unwrap();
    }
    let name = |certificate: &[u8]| Hex(digest(&SHA256, certificate).as_ref().to_vec());
    for certificate in certificates {
        assert_eq!(root.certificate(&name(certificate)).await.unwrap(), certificate);
    }
    let damaged = |found: Result<Vec<u8>, LogError>, why: &str| {
        let error = found.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    damaged(root.certificate(&name(b"never entered")).await, "it is not there");
    // Whoever can write to the store cannot put another certificate in an issuer's place.
    let mut batch = Batch::default();
    let entry = Blob(entry_of(b"a strange one", b"root"));
    batch.overwrite(&format!("{:020}", 1), &RootLogRecord { entry });
    assert!(matches!(place.journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
    damaged(root.certificate(&name(certificates[1])).await, "its entry is another certificate");
    assert_eq!(root.certificate(&name(certificates[0])).await.unwrap(), certificates[0]);
}

#[tokio::test]
async fn key_of_a_log_opens_with_its_seal_key_only_and_logs_have_names_of_their_own() {
    let place = Place::new();
    let (log, root) = (place.log().await, place.root().await);
    assert!(log.key().name().starts_with("td/myelin/log/"), "{}", log.key());
    assert!(root.key().name().starts_with("td/myelin/root-log/"), "{}", root.key());
    let other = SealKey::from_bytes([2; 32]);
    let refused = Key::open_or_make(&place.journal, Which::Root, "td", &other).await.err().unwrap();
    assert!(matches!(refused, LogError::Key(_)), "{refused}");
}
