//! Decisions as tables of values, and the authority on a real journal with a clock of our own.
//!
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::{AtomicU64, Ordering};

use myelin_identity::seal::SealKey;
use myelin_identity::svid::P256Spki;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::UnixTime;

use super::decide::{Decision, ISSUE_BURST, Known, decide, within_rate};
use super::*;
use crate::attest::{Caller, Claimed, Proven, RemoteAddr};
use crate::journal::{Blob, Grant, HeldRecord, HostRecord, LineageState, Redeemed, TokenRecord};
use crate::replica::ReplicaId;
use crate::store::embedded::Embedded;
use crate::template::{MAX_LIFETIME, MIN_LIFETIME};

const NOW: u64 = 1_800_000_000;

fn hex(byte: u8) -> Hex {
    Hex(vec![byte; 4])
}

fn key() -> P256Spki {
    P256Spki::try_from(&KeyPair::generate().unwrap().subject_public_key_info()[..]).unwrap()
}

fn grant() -> Grant {
    let addresses = vec!["10.0.0.7".parse().unwrap()];
    Grant {
        spiffe_id: "spiffe://prod.example/ns/shop/sa/web".to_owned(),
        addresses,
        ports: vec![],
        protocol: String::new(),
    }
}

fn host(denied: bool) -> HostRecord {
    HostRecord { grant: grant(), lineage: hex(3), denied, denied_by: None, next_due: 0 }
}

fn lineage(generation: u64, request_key: u8, csr: &P256Spki, state: LineageState) -> LineageRecord {
    LineageRecord {
        host: hex(1),
        generation,
        serial: hex(9),
        not_after: NOW + 100,
        request_key: hex(request_key),
        csr_key: Hex(csr.fingerprint().to_vec()),
        leaf_der: Blob(vec![]),
        issuer_der: Blob(vec![]),
        state,
        logged: None,
    }
}

fn held(generation: u64) -> HeldRecord {
    HeldRecord { serial: hex(9), lineage: hex(3), generation, not_after: NOW + 100 }
}

fn refused(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Refuse(reason) => Some(*reason),
        _ => None,
    }
}

#[test]
fn renewal_is_advanced_repeated_refused_or_an_alarm() {
    let (csr, other) = (key(), key());
    let advance = |decision: &Decision| matches!(decision, Decision::Advance { generation: 6, .. });
    // The lineage is at generation 5, issued for request key 5 and `csr`. The request claims a
    // generation, proves the SVID of one, and has a request key and a public key.
    let decided = |claimed, proven_generation, request_key: u8, csr_key, state| {
        let claim = Claimed::Renewal { lineage: hex(3), generation: claimed, serial: hex(9) };
        let proven = Proven::assumed(claim, hex(1), csr_key, hex(request_key));
        let (host, lineage, held) =
            (host(false), lineage(5, 5, &csr, state), held(proven_generation));
        let known = Known {
            host: Some(&host),
            lineage: Some(&lineage),
            held: Some(&held),
            ..Known::default()
        };
        decide(&proven, known, NOW)
    };
    use LineageState::{Denied, Live, Superseded};
    assert!(advance(&decided(5, 5, 6, other, Live)));
    assert_eq!(decided(4, 4, 5, csr, Live), Decision::Again);
    assert_eq!(decided(4, 4, 5, other, Live), Decision::Refuse(Reason::RequestKeyReused));
    assert_eq!(decided(4, 4, 6, other, Live), Decision::Alarm);
    assert_eq!(decided(3, 3, 5, csr, Live), Decision::Alarm);
    assert_eq!(decided(5, 5, 6, other, Superseded), Decision::Alarm);
    assert_eq!(refused(&decided(5, 5, 6, other, Denied)), Some(Reason::LineageDenied));
    // Who cannot prove the SVID of the claimed generation can neither renew nor raise an alarm.
    assert_eq!(refused(&decided(4, 5, 6, other, Live)), Some(Reason::SvidOfAnotherLineage));
    assert_eq!(refused(&decided(5, 4, 6, other, Live)), Some(Reason::SvidOfAnotherLineage));
}

#[test]
fn token_is_redeemed_once_and_repeated_only_to_the_same_request() {
    let (csr, other) = (key(), key());
    let used = Redeemed { at: NOW, host: hex(1), lineage: hex(3) };
    let token = |used: Option<&Redeemed>, expires| TokenRecord {
        grant: grant(),
        created: NOW,
        expires,
        used: used.cloned(),
    };
    let decided = |token: Option<&TokenRecord>, host: u8, request_key: u8, csr_key, generation| {
        let claim = Claimed::Token { secret_hash: hex(8) };
        let proven = Proven::assumed(claim, hex(host), csr_key, hex(request_key));
        let lineage = lineage(generation, 5, &csr, LineageState::Live);
        let known = Known { token, lineage: Some(&lineage), ..Known::default() };
        decide(&proven, known, NOW)
    };
    let (fresh, old, spent) = (token(None, NOW + 1), token(None, NOW), token(Some(&used), NOW));
    assert_eq!(decided(Some(&fresh), 1, 5, csr, 1), Decision::Begin { grant: grant() });
    assert_eq!(refused(&decided(Some(&old), 1, 5, csr, 1)), Some(Reason::TokenExpired));
    assert_eq!(refused(&decided(None, 1, 5, csr, 1)), Some(Reason::TokenUnknown));
    assert_eq!(decided(Some(&spent), 1, 5, csr, 1), Decision::Again);
    for (host, request_key, csr_key, generation) in
        [(2, 5, csr, 1), (1, 6, csr, 1), (1, 5, other, 1), (1, 5, csr, 2)]
    {
        let decision = decided(Some(&spent), host, request_key, csr_key, generation);
        assert_eq!(refused(&decision), Some(Reason::TokenUsed));
    }
}

#[test]
fn denied_host_gets_nothing_by_any_right() {
    let csr = key();
    let host = host(true);
    let renewal = Claimed::Renewal { lineage: hex(3), generation: 1, serial: hex(9) };
    for claim in [Claimed::HostAlone, Claimed::Token { secret_hash: hex(8) }, renewal] {
        let proven = Proven::assumed(claim, hex(1), csr, hex(5));
        let decision = decide(&proven, Known { host: Some(&host), ..Known::default() }, NOW);
        assert_eq!(refused(&decision), Some(Reason::HostDenied));
    }
}

#[test]
fn issues_of_a_host_are_bounded_by_burst_and_rate() {
    let mut record = host(false);
    let mut granted = 0;
    while let Ok(next_due) = within_rate(Some(&record), MAX_LIFETIME.as_secs(), NOW) {
        record.next_due = next_due;
        granted += 1;
    }
    assert_eq!(granted, ISSUE_BURST + 1);
    assert!(within_rate(Some(&record), MAX_LIFETIME.as_secs(), NOW + 400).is_ok());
    assert!(within_rate(None, MAX_LIFETIME.as_secs(), NOW).is_ok());
}

async fn authority(time: &Arc<AtomicU64>) -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(Arc::new(Embedded::open(&dir.path().join("store.redb")).unwrap()));
    let domain = TrustDomain::parse("prod.example").unwrap();
    let (seal_key, replica) = (SealKey::from_bytes([1; 32]), ReplicaId::from_bytes([1; 8]));
    let metrics = crate::metrics::Metrics::new().unwrap().log;
    let logs = Logs::start(dir.path(), &journal, &seal_key, "prod.example", &replica, metrics);
    let logs = logs.await.unwrap();
    let rotation = Rotation::start(journal.clone(), &domain, seal_key, replica, NOW).await.unwrap();
    let lifetimes = Lifetimes { default: MAX_LIFETIME, shortest: MIN_LIFETIME };
    let settings = Settings { lifetimes, own_addresses: vec![], own_names: vec![] };
    let time = time.clone();
    let clock = Clock::new(move || {
        UnixTime::since_unix_epoch(Duration::from_secs(time.load(Ordering::SeqCst)))
    });
    (dir, Authority::start(journal, rotation, logs, settings, clock).await.unwrap())
}

async fn join(authority: &Authority) -> Result<Issued, IssueError> {
    let request = tokens::TokenRequest {
        spiffe_id: grant().spiffe_id,
        addresses: grant().addresses,
        ports: vec![],
        protocol: String::new(),
        ttl_seconds: 60,
    };
    let now = authority.clock().seconds();
    let made =
        tokens::create(authority.journal(), &authority.bundle(), &request, now).await.unwrap();
    let proven = Proven::assumed(Claimed::Token { secret_hash: made.name }, hex(1), key(), hex(5));
    let remote = RemoteAddr("10.0.0.1:5".parse().unwrap());
    authority.issue(&Caller { remote, peer: None, exporter: [0; 32] }, &proven).await
}

#[tokio::test]
async fn certificate_is_shortened_to_its_issuers_end_and_refused_when_too_little_is_left() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (_dir, authority) = authority(&time).await;
    let end = authority.signer_not_after();
    for (left, expected) in [
        (3600, Ok(end)),
        (300, Ok(end)),
        (299, Err("issuer_expiring")),
        (0, Err("issuer_expiring")),
    ] {
        time.store(end - left, Ordering::SeqCst);
        let issued = join(&authority).await;
        assert_eq!(
            issued.map(|issued| issued.not_after).map_err(|error| error.word()),
            expected,
            "{left}"
        );
    }
}

#[tokio::test]
async fn journal_that_disagrees_with_the_live_claims_is_not_served() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (_dir, first) = authority(&time).await;
    let issued = join(&first).await.unwrap();
    first.recall().await.unwrap();
    let entry = first
        .journal
        .read::<crate::journal::IssuedRecord>(&issued.serial.to_string())
        .await
        .unwrap()
        .unwrap();
    let mut batch = crate::journal::Batch::default();
    batch.remove(&entry);
    let _ = first.journal.commit(batch).await.unwrap();
    assert!(matches!(first.recall().await, Err(AuthorityError::Disagreement { .. })));
}

#[tokio::test]
async fn sweep_removes_what_ended_long_ago_and_keeps_the_host() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (_dir, authority) = authority(&time).await;
    join(&authority).await.unwrap();
    assert_eq!(authority.sweep().await.unwrap(), 0);
    time.store(NOW + 9 * 24 * 3600, Ordering::SeqCst);
    // Token, issued, held, address; the host and its current lineage stay.
    assert_eq!(authority.sweep().await.unwrap(), 4);
    assert_eq!(authority.journal.all::<HostRecord>().await.unwrap().len(), 1);
    assert_eq!(authority.journal.all::<LineageRecord>().await.unwrap().len(), 1);
}
