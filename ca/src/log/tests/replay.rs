//! What a replay finds: damage in files and journal, and nothing else, also while the log grows.
//!
//! Never: a running server; those are asked in `ca/tests`.

// SPDX-License-Identifier: Apache-2.0

use std::cell::Cell;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, KeyPair, SanType, SerialNumber};

use super::faults::{head, rewind};
use super::*;
use crate::clock::UnixSeconds;
use crate::journal::{AddressRecord, Claim, IssuedRecord};

#[tokio::test]
async fn replay_names_each_damage() {
    for (name, expected) in [
        ("tile/entries/000", "tile/entries/000"),
        ("tile/0/000", "tile/entries/000"),
        ("tile/1/000.p/2", "tile/1/000.p/2"),
        ("checkpoint", "checkpoint"),
    ] {
        let place = Place::new();
        let log = place.log().await;
        for n in 0..3 {
            fill(&log, n * 200..(n + 1) * 200).await;
        }
        drop(log);
        place.flip(name);
        let found = place.replay().await;
        assert!(found.damages.iter().any(|line| line.starts_with(expected)), "{name}: {found:?}");
    }
}

fn record(certificate: &[u8], index: u64, replica: &str) -> IssuedRecord {
    IssuedRecord {
        spiffe_id: String::new(),
        attestor: String::new(),
        host: Hex(Vec::new()),
        lineage: Hex(Vec::new()),
        generation: 0,
        issued: 0,
        not_before: 0,
        not_after: 0,
        leaf_sha256: Hex(digest(&SHA256, certificate).as_ref().to_vec()),
        logged: Some(LogPlace { replica: replica.to_owned(), index }),
    }
}

/// What `entry(n)` logs.
fn certificate(n: u64) -> Vec<u8> {
    [b"certificate ", n.to_string().as_bytes()].concat()
}

impl Place {
    async fn record(&self, serial: &str, record: &IssuedRecord) {
        let mut batch = Batch::default();
        batch.create(serial, record);
        let _ = self.journal.commit(batch).await.unwrap();
    }

    /// A replay during which something happens right before the question of this number.
    async fn replay_while(&self, at: u32, now: UnixSeconds, happens: impl AsyncFn()) -> Findings {
        let asked = Cell::new(0);
        let ask = async |question| {
            if asked.replace(asked.get() + 1) == at {
                happens().await;
            }
            answer(&self.journal, &question).await
        };
        verify(self.dir.path(), &replica(), now, ask, |_| {}).await.unwrap()
    }
}

#[tokio::test]
async fn replay_compares_the_journal_with_the_log() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..4).await;
    drop(log);
    // Right, another certificate, beyond the log, another replica's, a place that is taken.
    let ours = replica().to_string();
    for (serial, certified, index, replica) in [
        ("01", 1, 1, ours.as_str()),
        ("02", 3, 2, &ours),
        ("03", 0, 9, &ours),
        ("04", 0, 9, "other"),
        ("05", 1, 1, &ours),
    ] {
        place.record(serial, &record(&certificate(certified), index, replica)).await;
    }
    let found = place.replay().await;
    assert_eq!((found.certificates, found.damages.len()), (1, 3), "{found:?}");
    for serial in ["02", "03", "05"] {
        let named = format!("journal, certificate {serial}: ");
        assert!(found.damages.iter().any(|line| line.starts_with(&named)), "{found:?}");
    }
}

/// Whoever writes one record that nobody can read must not hide what else he did.
#[tokio::test]
async fn record_that_cannot_be_read_is_named_and_stops_no_replay() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..4).await;
    drop(log);
    let ours = replica().to_string();
    for (serial, certified) in [("01", 1), ("03", 0)] {
        place
            .record(serial, &record(&certificate(certified), 1 + 2 * (certified ^ 1), &ours))
            .await;
    }
    let garbage = |key: &str| crate::store::Write::Put(key.to_owned(), b"{\"v\":1,".to_vec());
    let writes = vec![garbage("issued/02"), garbage("address/10.0.0.9\n")];
    let _ = place.journal.raw().commit(vec![], writes).await.unwrap();
    let found = place.replay().await;
    assert_eq!(found.certificates, 1, "{found:?}");
    let expected = [
        "journal, issued/02: it cannot be read",
        "journal, certificate 03: entry 3 is another certificate",
        "journal, address/10.0.0.9\\n: it cannot be read",
    ];
    assert_eq!(found.damages, expected);
}

/// Questions: the head, the certificates, the end of their list, the head again.
#[tokio::test]
async fn replay_beside_a_log_that_grows_misses_nothing_and_makes_nothing_up() {
    let ours = replica().to_string();
    for (at, entries, later) in [(0, 600, 0), (1, 200, 2), (2, 200, 1), (3, 200, 0), (4, 200, 0)] {
        let place = Place::new();
        let log = place.log().await;
        fill(&log, 0..200).await;
        place.record("01", &record(&certificate(7), 7, &ours)).await;
        let found = place
            .replay_while(at, 0, async || {
                // Bundles fill up, and partial files go.
                let made = fill(&log, 200..600).await;
                for (serial, nth) in [("00", 50), ("02", 399)] {
                    let (entry, inclusion) = &made[nth];
                    let parsed = myelin_identity::log::Entry::parse(entry).unwrap();
                    let record = record(parsed.certificate, inclusion.index, &ours);
                    place.record(serial, &record).await;
                }
            })
            .await;
        assert_eq!(found.damages, Vec::<String>::new(), "before question {at}");
        assert_eq!((found.entries, found.later), (entries, later), "before question {at}");
        assert_eq!(found.certificates, if at == 0 { 3 } else { 1 }, "before question {at}");
    }
}

#[tokio::test]
async fn journal_that_goes_back_while_it_is_read_is_named() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..3).await;
    let older = head(&place).await.record;
    fill(&log, 3..5).await;
    drop(log);
    let found = place.replay_while(2, 0, async || rewind(&place, &older).await).await;
    assert_eq!(found.damages, ["journal: its head was at 5 entries, and is at 3"]);
}

#[tokio::test]
async fn older_checkpoint_of_another_history_is_named() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..5).await;
    drop(log);
    let key = Which::Issuing(&replica());
    let seal_key = SealKey::from_bytes([1; 32]);
    let key = Key::open_or_make(&place.journal, key, "td", &seal_key).await.unwrap();
    let mut right = myelin_identity::log::Frontier::default();
    (0..3).for_each(|n| drop(right.append(leaf_hash(&entry(n)))));
    for (root, damages) in [(right.root(), 0), (leaf_hash(b"another history"), 1)] {
        fs::write(place.file("checkpoint"), key.sign(3, root)).unwrap();
        let found = place.replay().await;
        assert_eq!(found.damages.len(), damages, "{found:?}");
        assert!(found.damages.iter().all(|line| line.starts_with("checkpoint: ")), "{found:?}");
    }
}

/// Begins at 2033-05-18 03:33:20 and lasts for an hour.
const BEGIN: u64 = 2_000_000_000;

fn svid() -> Vec<u8> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    let uri = "spiffe://td/ns/shop/sa/web".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.serial_number = Some(SerialNumber::from(vec![0xab, 1]));
    params.not_before = epoch + Duration::from_secs(BEGIN);
    params.not_after = params.not_before + Duration::from_secs(3600);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[tokio::test]
async fn entry_that_the_journal_does_not_know_is_named_unless_it_is_on_its_way() {
    let place = Place::new();
    let log = place.log().await;
    fill(&log, 0..2).await;
    let svid = svid();
    log.append(entry_of(&svid, b"issuer")).await.unwrap();
    let counts = |found: &Findings| (found.certificates, found.under_way, found.unclaimed);
    let at = async |now| place.replay_while(99, now, async || {}).await;
    assert_eq!(counts(&at(BEGIN + 60).await), (0, 1, 0), "signed this second");
    assert_eq!(counts(&at(BEGIN + 3600).await), (0, 0, 0), "it has ended");
    let found = at(BEGIN + 100).await;
    assert_eq!(counts(&found), (0, 0, 1));
    assert_eq!(
        found.unclaimed_named,
        ["entry 2, certificate ab01, spiffe://td/ns/shop/sa/web, until 2033-05-18T04:33:20Z"]
    );
    assert_eq!(found.damages, Vec::<String>::new());
    // The journal hears of it after its certificates were read.
    let ours = replica().to_string();
    let hears = async || place.record("ab01", &record(&svid, 2, &ours)).await;
    let found = place.replay_while(3, BEGIN + 100, hears).await;
    assert_eq!(counts(&found), (1, 0, 0), "{found:?}");
}

#[tokio::test]
async fn record_that_was_taken_from_a_live_certificate_is_named() {
    let place = Place::new();
    drop(place.log().await);
    let claim = |serial: u8, not_after| Claim {
        port: None,
        spiffe_id: String::new(),
        protocol: String::new(),
        host: Hex(Vec::new()),
        serial: Hex(vec![serial]),
        not_after,
        root: Hex(Vec::new()),
    };
    place.record("01", &record(b"", 0, "other")).await;
    let mut batch = Batch::default();
    let claims = vec![claim(1, 100), claim(2, 100), claim(3, 50)];
    batch.create("10.0.0.7", &AddressRecord { claims });
    let _ = place.journal.commit(batch).await.unwrap();
    let found = place.replay_while(99, 60, async || {}).await;
    let named = "journal, certificate 02: it is in force at 10.0.0.7, and its record is not there";
    assert_eq!(found.damages, [named]);
}
