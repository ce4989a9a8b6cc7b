//! Decisions as tables of values, and the authority on a real journal with a clock of our own.
//!
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use myelin_identity::seal::SealKey;
use myelin_identity::svid::P256Spki;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::UnixTime;
use serde_json::json;

mod ladder;

use super::decide::{Decision, ISSUE_BURST, Known, MAX_HELD, decide, within_rate};
use super::*;
use crate::attest::{Caller, Claimed, Proven, RemoteAddr};
use crate::journal::{
    Blob, DenyRecord, Grant, Held, HostRecord, LineageState, Redeemed, TokenRecord,
};
use crate::replica::ReplicaId;
use crate::rotation::{Home, Pin};
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
    HostRecord {
        grant: grant(),
        lineage: hex(3),
        denied,
        barred_by: BTreeSet::new(),
        attested_by: None,
        pod: None,
        next_due: 0,
        held: vec![],
    }
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
        issuer: hex(2),
        state,
        logged: None,
    }
}

fn held(generation: u64) -> Held {
    Held { serial: hex(9), lineage: hex(3), generation, not_after: NOW + 100 }
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
fn host_that_is_denied_or_gone_gets_nothing_by_any_right() {
    let csr = key();
    let of_pod = |gone| {
        let pod = json!({"issuer": "c", "namespace": "n", "name": "p", "uid": "1", "gone": gone});
        HostRecord { pod: Some(serde_json::from_value(pod).unwrap()), ..host(false) }
    };
    let renewal = Claimed::Renewal { lineage: hex(3), generation: 1, serial: hex(9) };
    for claim in [Claimed::HostAlone, Claimed::Token { secret_hash: hex(8) }, renewal] {
        let proven = Proven::assumed(claim, hex(1), csr, hex(5));
        let refused = |host: &HostRecord| {
            refused(&decide(&proven, Known { host: Some(host), ..Known::default() }, NOW))
        };
        assert_eq!(refused(&host(true)), Some(Reason::HostDenied));
        assert_eq!(refused(&of_pod(true)), Some(Reason::PodGone));
        assert_ne!(refused(&of_pod(false)), Some(Reason::PodGone));
    }
}

/// What evidence from outside changes in each decision.
#[test]
fn evidence_is_demanded_of_who_came_with_it_and_entries_decide() {
    let csr = key();
    let attested = || crate::attest::Attested {
        attestor: "kubernetes",
        selectors: vec![],
        bound_to: None,
        service_account: None,
        addresses: vec![],
        is_remembered: false,
        pod: None,
    };
    let pod = HostRecord { attested_by: Some("kubernetes".to_owned()), ..host(false) };
    let (by_token, live) = (host(false), lineage(1, 5, &csr, LineageState::Live));
    let held = held(1);
    let other = Grant { spiffe_id: "spiffe://prod.example/ns/a/sa/b".to_owned(), ..grant() };
    let same = grant();
    let decided = |shown: bool, renews: bool, known: Known<'_>| {
        let renewal = Claimed::Renewal { lineage: hex(3), generation: 1, serial: hex(9) };
        let claim = if renews { renewal } else { Claimed::HostAlone };
        let proven = Proven::assumed(claim, hex(1), csr, hex(6));
        decide(&if shown { proven.with(attested()) } else { proven }, known, NOW)
    };
    let known = Known { lineage: Some(&live), held: Some(&held), ..Known::default() };
    let with = |host, entry| Known { host: Some(host), entry, ..known };
    assert!(matches!(decided(false, false, with(&by_token, None)), Decision::Begin { .. }));
    for renews in [false, true] {
        let bare = decided(false, renews, with(&pod, None));
        assert_eq!(refused(&bare), Some(Reason::EvidenceMissing));
        let denied = decided(true, renews, with(&pod, Some(Err(Reason::EntryDenied))));
        assert_eq!(refused(&denied), Some(Reason::EntryDenied));
        for reason in [Reason::Replayed, Reason::MachineBound, Reason::HostDenied] {
            let bound = Known { bound_elsewhere: Some(reason), ..with(&pod, Some(Ok(&same))) };
            assert_eq!(refused(&decided(true, renews, bound)), Some(reason));
        }
    }
    let first = decided(true, false, Known { entry: Some(Ok(&same)), ..Known::default() });
    assert_eq!(first, Decision::Begin { grant: grant() });
    let renewed = decided(true, true, with(&pod, Some(Ok(&same))));
    assert_eq!(renewed, Decision::Advance { grant: grant(), generation: 2 });
    let changed = decided(true, true, with(&pod, Some(Ok(&other))));
    assert_eq!(refused(&changed), Some(Reason::IdChanged));
    let anew = decided(true, false, with(&pod, Some(Ok(&other))));
    assert_eq!(anew, Decision::Begin { grant: other });
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
    // Long lives at a short default: the rate alone would let the record of the host grow.
    let much = |many| HostRecord { held: vec![held(1); many], ..host(false) };
    assert!(within_rate(Some(&much(MAX_HELD - 1)), MAX_LIFETIME.as_secs(), NOW).is_ok());
    let full = within_rate(Some(&much(MAX_HELD)), MAX_LIFETIME.as_secs(), NOW);
    assert_eq!(full, Err(Reason::TooOften));
    let ended = within_rate(Some(&much(MAX_HELD)), MAX_LIFETIME.as_secs(), NOW + 101);
    assert!(ended.is_ok(), "what has expired does not count");
}

async fn authority(time: &Arc<AtomicU64>) -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(Arc::new(Embedded::open(&dir.path().join("store.redb")).unwrap()));
    let authority = replica(dir.path(), journal, 1, time).await;
    (dir, authority)
}

/// One of several on a store.
async fn replica(
    directory: &std::path::Path,
    journal: Journal,
    id: u8,
    time: &Arc<AtomicU64>,
) -> Authority {
    giving(MAX_LIFETIME, directory, journal, id, time).await
}

/// The same, whose SVIDs live for `longest` at most.
async fn giving(
    longest: Duration,
    directory: &std::path::Path,
    journal: Journal,
    id: u8,
    time: &Arc<AtomicU64>,
) -> Authority {
    let domain = TrustDomain::parse("prod.example").unwrap();
    let (seal_key, replica) = (SealKey::from_bytes([1; 32]), ReplicaId::from_bytes([id; 8]));
    let metrics = crate::metrics::Metrics::new().unwrap().log;
    let logs = Logs::start(directory, &journal, &seal_key, "prod.example", &replica, metrics);
    let logs = logs.await.unwrap();
    let home = Home { replica, pin: Pin::at(directory.join(format!("trust-{id}.pin"))) };
    let rotation = Rotation::start(journal.clone(), &domain, seal_key, home, NOW).await.unwrap();
    let lifetimes = Lifetimes { default: longest, shortest: MIN_LIFETIME, longest };
    let settings = Settings {
        lifetimes,
        own_addresses: vec![],
        own_names: vec![],
        kubernetes_namespaces: vec![],
        rotate_root_every: None,
    };
    let time = time.clone();
    let clock = Clock::new(move || {
        UnixTime::since_unix_epoch(Duration::from_secs(time.load(Ordering::SeqCst)))
    });
    Authority::start(journal, rotation, logs, settings, clock).await.unwrap()
}

async fn revoke(authority: &Authority) {
    let subject = revocation::Subject::Id(grant().spiffe_id);
    let request = revocation::RevokeRequest { subject, reason: String::new() };
    let domain = authority.trust_domain();
    revocation::revoke(authority.journal(), &domain, &request, NOW).await.unwrap();
}

#[tokio::test]
async fn revocation_at_one_replica_is_heard_by_the_others_and_binds_their_issues_at_once() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (_dir, one) = authority(&time).await;
    let other = tempfile::tempdir().unwrap();
    let two = replica(other.path(), one.journal().clone(), 2, &time).await;
    join(&two).await.unwrap();
    assert!(two.live().at(grant().addresses[0], 80, NOW).is_some());
    revoke(&one).await;
    // The other one has not heard yet, and still cannot issue: its commit expects the old list.
    assert_eq!(two.deny_epoch(), 0);
    let host = two.journal().all::<HostRecord>().await.unwrap().remove(0);
    assert!(host.record.denied);
    let proven = Proven::assumed(Claimed::HostAlone, hex(1), key(), hex(6));
    let caller =
        Caller { remote: RemoteAddr("10.0.0.1:5".parse().unwrap()), peer: None, exporter: [0; 32] };
    let refused = two.issue(&caller, &proven).await.map(drop).map_err(|error| error.word());
    assert_eq!(refused, Err("host_denied"));
    assert!(two.hear_denials().await.unwrap());
    assert_eq!(two.deny_epoch(), one.journal().all::<DenyRecord>().await.unwrap()[0].record.epoch);
    assert!(two.live().at(grant().addresses[0], 80, NOW).is_none(), "the directory forgets it");
    let refused = two.issue(&caller, &proven).await.map(drop).map_err(|error| error.word());
    assert_eq!(refused, Err("id_denied"));
    assert!(!two.hear_denials().await.unwrap(), "nothing new");
}

#[tokio::test]
async fn denial_that_has_ended_leaves_the_list_with_a_new_epoch() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (_dir, authority) = authority(&time).await;
    join(&authority).await.unwrap();
    revoke(&authority).await;
    authority.hear_denials().await.unwrap();
    let (epoch, entries) = (authority.deny_epoch(), authority.deny_list().entries().count());
    assert_eq!(entries, 1);
    time.store(NOW + MAX_LIFETIME.as_secs() + 601, Ordering::SeqCst);
    authority.hear_denials().await.unwrap();
    assert_eq!(authority.deny_list().entries().count(), 1, "a list that shrinks is another list");
    authority.sweep().await.unwrap();
    authority.hear_denials().await.unwrap();
    assert_eq!(authority.deny_list().entries().count(), 0);
    assert!(authority.deny_epoch() > epoch);
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
    // Token, issued, address; the host and its current lineage stay.
    assert_eq!(authority.sweep().await.unwrap(), 3);
    assert_eq!(authority.journal.all::<HostRecord>().await.unwrap().len(), 1);
    assert_eq!(authority.journal.all::<LineageRecord>().await.unwrap().len(), 1);
}
