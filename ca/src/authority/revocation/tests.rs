//! Revocations on a real journal, as tables of what was there before and what is denied after.
//!
//! Never: a socket, a running CA.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::journal::{DenyRecord, Grant, Held, TokenRecord};
use crate::store::embedded::Embedded;

const NOW: u64 = 1_800_000_000;
const WEB: &str = "spiffe://prod.example/ns/shop/sa/web";
const DB: &str = "spiffe://prod.example/ns/shop/sa/db";

fn hex(byte: u8) -> Hex {
    Hex(vec![byte; 4])
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.example").unwrap()
}

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    (dir, Journal::new(Arc::new(store)))
}

fn grant(id: &str) -> Grant {
    Grant {
        spiffe_id: id.to_owned(),
        addresses: vec!["10.0.0.7".parse().unwrap()],
        ports: vec![],
        protocol: String::new(),
    }
}

/// A host with one certificate, whose serial is the host's byte.
async fn host(journal: &Journal, byte: u8, id: &str, not_after: u64) {
    let (host, serial) = (hex(byte), hex(byte));
    let mut batch = Batch::default();
    let record = HostRecord {
        grant: grant(id),
        lineage: hex(byte),
        denied: false,
        barred_by: BTreeSet::new(),
        attested_by: None,
        pod: None,
        next_due: 0,
        held: vec![Held { serial: serial.clone(), lineage: hex(byte), generation: 1, not_after }],
    };
    batch.create(&host.to_string(), &record);
    let issued = IssuedRecord {
        spiffe_id: id.to_owned(),
        attestor: "join_token".to_owned(),
        host,
        lineage: hex(byte),
        generation: 1,
        issued: NOW - 10,
        not_before: NOW - 60,
        not_after,
        leaf_sha256: hex(byte),
        logged: None,
    };
    batch.create(&serial.to_string(), &issued);
    assert!(matches!(journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
}

async fn token(journal: &Journal, byte: u8, id: &str) {
    let record = TokenRecord { grant: grant(id), created: NOW, expires: NOW + 600, used: None };
    let mut batch = Batch::default();
    batch.create(&hex(byte).to_string(), &record);
    assert!(matches!(journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
}

async fn revoked(journal: &Journal, subject: Subject) -> Result<Revoked, String> {
    let request = RevokeRequest { subject, reason: "stolen laptop".to_owned() };
    revoke(journal, &domain(), &request, NOW).await.map_err(|error| error.to_string())
}

async fn barred(journal: &Journal, byte: u8) -> bool {
    journal.read::<HostRecord>(&hex(byte).to_string()).await.unwrap().unwrap().record.denied
}

#[tokio::test]
async fn revoked_id_is_denied_until_its_last_certificate_ends_with_all_its_hosts_and_tokens() {
    let (_dir, journal) = journal();
    host(&journal, 1, WEB, NOW + 100).await;
    host(&journal, 2, WEB, NOW + 900).await;
    host(&journal, 3, DB, NOW + 5000).await;
    host(&journal, 4, WEB, NOW - 1).await;
    token(&journal, 1, WEB).await;
    token(&journal, 2, DB).await;
    let done = revoked(&journal, Subject::Id(WEB.to_owned())).await.unwrap();
    assert_eq!((done.until, done.hosts, done.tokens), (NOW + 900, 3, 1));
    for (byte, expected) in [(1, true), (2, true), (3, false), (4, true)] {
        assert_eq!(barred(&journal, byte).await, expected, "{byte}");
    }
    let denied = Denied::read(&journal, NOW).await.unwrap();
    assert!(denied.holds_id(WEB, NOW + 900) && !denied.holds_id(WEB, NOW + 901), "clears itself");
    assert!(!denied.holds_id(DB, NOW));
    let again = revoked(&journal, Subject::Id(WEB.to_owned())).await.unwrap_err();
    assert!(again.contains(&format!("number {}", done.number)), "{again}");
    let token = journal.read::<TokenRecord>(&hex(1).to_string()).await.unwrap().unwrap();
    assert_eq!(token.record.expires, NOW);
}

#[tokio::test]
async fn revoked_serial_bars_its_machine_and_no_other_of_that_id() {
    let (_dir, journal) = journal();
    host(&journal, 1, WEB, NOW + 100).await;
    host(&journal, 2, WEB, NOW + 900).await;
    let done = revoked(&journal, Subject::Serial("01010101".to_owned())).await.unwrap();
    assert_eq!((done.serials, done.until, done.hosts), (vec!["01010101".to_owned()], NOW + 100, 1));
    assert!(barred(&journal, 1).await && !barred(&journal, 2).await);
    let denied = Denied::read(&journal, NOW).await.unwrap();
    assert!(!denied.holds_id(WEB, NOW));
    let lines = list(&journal, NOW).await.unwrap();
    assert_eq!(lines[0].reason, "stolen laptop");
    assert!(list(&journal, NOW + 101).await.unwrap().is_empty(), "it has ended");
}

#[tokio::test]
async fn revoked_serial_is_denied_though_the_record_of_its_host_is_gone() {
    let (_dir, journal) = journal();
    host(&journal, 1, WEB, NOW + 100).await;
    let mut batch = Batch::default();
    batch.erase::<HostRecord>(&hex(1).to_string());
    assert!(matches!(journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
    let done = revoked(&journal, Subject::Serial("01010101".to_owned())).await.unwrap();
    assert_eq!((done.serials, done.until, done.hosts), (vec!["01010101".to_owned()], NOW + 100, 0));
}

#[tokio::test]
async fn revocation_that_is_undone_leaves_nothing_but_a_higher_epoch() {
    let (_dir, journal) = journal();
    host(&journal, 1, WEB, NOW + 100).await;
    let done = revoked(&journal, Subject::Id(WEB.to_owned())).await.unwrap();
    let before = Denied::read(&journal, NOW).await.unwrap().list.epoch();
    undo(&journal, done.number, NOW).await.unwrap();
    let after = Denied::read(&journal, NOW).await.unwrap();
    assert!(after.list.epoch() > before && !after.holds_id(WEB, NOW));
    assert!(!barred(&journal, 1).await);
    let twice = undo(&journal, done.number, NOW).await.unwrap_err();
    assert!(matches!(twice, RevokeError::NumberUnknown(_)), "{twice}");
}

#[tokio::test]
async fn host_that_two_denials_bar_is_let_in_when_both_are_undone() {
    for first_undone in [0, 1] {
        let (_dir, journal) = journal();
        host(&journal, 1, WEB, NOW + 100).await;
        let serial = revoked(&journal, Subject::Serial("01010101".to_owned())).await.unwrap();
        let id = revoked(&journal, Subject::Id(WEB.to_owned())).await.unwrap();
        assert_eq!((serial.hosts, id.hosts), (1, 1));
        let numbers = [serial.number, id.number];
        undo(&journal, numbers[first_undone], NOW).await.unwrap();
        assert!(barred(&journal, 1).await, "the other one holds");
        undo(&journal, numbers[1 - first_undone], NOW).await.unwrap();
        assert!(!barred(&journal, 1).await);
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_and_change_nothing() {
    let (_dir, journal) = journal();
    host(&journal, 1, WEB, NOW + 100).await;
    host(&journal, 2, WEB, NOW - 100).await;
    let id = |text: &str| Subject::Id(text.to_owned());
    let serial = |text: &str| Subject::Serial(text.to_owned());
    for (subject, expected) in [
        (id("web"), "no SPIFFE ID"),
        (id("spiffe://other.example/ns/a/sa/b"), "another trust domain"),
        (id("spiffe://prod.example/myelin/ca"), "the CA's own"),
        (id("spiffe://prod.example/ns/shop/sa/wbe"), "spelt right"),
        (id("spiffe://prod.example/ns/shop/sa/*"), "no SPIFFE ID"),
        (serial("xyz"), "not hexadecimal"),
        (serial("0909"), "no certificate with serial"),
        (serial("02020202"), "ended at"),
    ] {
        let refused = revoked(&journal, subject).await.unwrap_err();
        assert!(refused.contains(expected), "{refused}, expected {expected}");
    }
    let long = RevokeRequest { subject: id(WEB), reason: "x".repeat(MAX_REASON_BYTES + 1) };
    assert!(revoke(&journal, &domain(), &long, NOW).await.is_err());
    assert!(!barred(&journal, 1).await);
    assert!(list(&journal, NOW).await.unwrap().is_empty());
}

#[tokio::test]
async fn alarm_is_not_undone() {
    let (_dir, journal) = journal();
    let denied = Denied::read(&journal, NOW).await.unwrap();
    let record = DenialRecord {
        at: NOW,
        cause: Cause::Alarm,
        reason: String::new(),
        id: None,
        serials: vec![DeniedSerial { serial: hex(1), until: NOW + 9 }],
        settled: true,
    };
    let mut batch = Batch::default();
    let number = denied.add(&mut batch, &record).unwrap();
    assert!(matches!(journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
    let refused = undo(&journal, number, NOW).await.unwrap_err();
    assert!(matches!(refused, RevokeError::IsAlarm(_)), "{refused}");
}

/// The process died between the denial and its consequences.
#[tokio::test]
async fn interrupted_revocation_denies_at_once_and_is_finished_later() {
    let (_dir, journal) = journal();
    host(&journal, 1, WEB, NOW + 100).await;
    let record = DenialRecord {
        at: NOW,
        cause: Cause::Operator,
        reason: String::new(),
        id: Some(DeniedId { spiffe_id: WEB.to_owned(), until: NOW + MAX_LIFETIME.as_secs() }),
        serials: vec![],
        settled: false,
    };
    let mut batch = Batch::default();
    let number = Denied::read(&journal, NOW).await.unwrap().add(&mut batch, &record).unwrap();
    assert!(matches!(journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
    assert!(Denied::read(&journal, NOW).await.unwrap().holds_id(WEB, NOW + 3600));
    let early = undo(&journal, number, NOW).await.unwrap_err();
    assert!(matches!(early, RevokeError::NotSettled(_)), "{early}");
    assert_eq!(settle_all(&journal, NOW + 59).await.unwrap(), 0, "somebody may be at it");
    assert_eq!(settle_all(&journal, NOW + 60).await.unwrap(), 1);
    assert!(barred(&journal, 1).await);
    let denied = Denied::read(&journal, NOW).await.unwrap();
    assert!(denied.holds_id(WEB, NOW + 100) && !denied.holds_id(WEB, NOW + 101));
    assert_eq!(settle_all(&journal, NOW + 90).await.unwrap(), 0);
}

#[tokio::test]
async fn host_of_an_older_store_is_refused_and_not_read_as_holding_nothing() {
    let (_dir, journal) = journal();
    let old = serde_json::json!({ "v": 1, "record": {
        "grant": grant(WEB), "lineage": hex(3), "denied": false, "next_due": 0,
    } });
    let put = crate::store::Write::Put("host/01010101".to_owned(), old.to_string().into_bytes());
    assert!(journal.raw().commit(vec![], vec![put]).await.is_ok());
    let read = journal.read::<HostRecord>("01010101").await;
    assert!(
        matches!(&read, Err(JournalError::Unreadable { why, .. }) if why.contains("version 1"))
    );
}

/// An alarm's serials in the epoch's own record, as stores of before hold them.
#[tokio::test]
async fn denials_of_an_older_store_still_count() {
    let (_dir, journal) = journal();
    let serials = vec![DeniedSerial { serial: hex(7), until: NOW + 9 }];
    let mut batch = Batch::default();
    batch.create(crate::journal::CURRENT, &DenyRecord { epoch: 4, serials });
    assert!(matches!(journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
    host(&journal, 1, WEB, NOW + 100).await;
    revoked(&journal, Subject::Id(WEB.to_owned())).await.unwrap();
    let denied = Denied::read(&journal, NOW).await.unwrap();
    assert_eq!(denied.list.entries().count(), 2);
    assert!(denied.list.epoch() > 4);
}
