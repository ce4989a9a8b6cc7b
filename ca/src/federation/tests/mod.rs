//! Federation as values and against a store: what an operator may add, what an endpoint may say,
//! how set and epoch move together. (Endpoints themselves are in `tests/federation.rs`.)
//!
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

mod forged;

use std::sync::Arc;

use myelin_identity::bundle::{ForeignBundles, MAX_FOREIGN, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::seal::SealKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use super::judge::{Verdict, judge, record};
use super::*;
use crate::journal::{EndpointProfile, ForeignRecord, Journal};
use crate::store::embedded::Embedded;

/// 2027-01-15T08:00:00Z
const NOW: u64 = 1_800_000_000;

fn root(name: &str) -> CertificateDer<'static> {
    root_valid(name, 2020, 2040)
}

fn root_valid(name: &str, from: i32, until: i32) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
}

fn own() -> TrustDomain {
    TrustDomain::parse("a.example").unwrap()
}

fn theirs() -> TrustDomain {
    TrustDomain::parse("b.example").unwrap()
}

fn bundle(sequence: u64, roots: &[&CertificateDer<'static>]) -> TrustBundle {
    let roots = roots.iter().map(|root| (*root).clone()).collect();
    TrustBundle::new(theirs(), sequence, roots).unwrap()
}

fn json(sequence: u64, roots: &[&CertificateDer<'static>]) -> String {
    bundle(sequence, roots).to_spiffe_json()
}

fn request() -> AddRequest {
    AddRequest {
        trust_domain: "b.example".to_owned(),
        profile: EndpointProfile::HttpsSpiffe,
        url: "https://10.0.0.9:15012/".to_owned(),
        endpoint_spiffe_id: None,
        address: None,
        bundle: Some(json(4, &[&root("b")])),
        web_roots_pem: None,
        unlogged: false,
    }
}

/// A replica of our CA on a store of its own.
fn replica() -> (tempfile::TempDir, Roll) {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb")).unwrap();
    let roll = at(&directory, &Journal::new(Arc::new(store)), "federation.pin");
    (directory, roll)
}

/// One on a store that is there, with its own pin.
fn at(directory: &tempfile::TempDir, journal: &Journal, pin: &str) -> Roll {
    let key = SealKey::from_bytes([7; 32]);
    Roll::open(journal.clone(), own(), key, directory.path().join(pin)).unwrap()
}

async fn told(roll: &Roll) -> ForeignBundles {
    roll.view().await.unwrap().set().unwrap()
}

#[test]
fn what_does_not_fit_together_is_refused_in_one_line_that_names_the_flag() {
    type Edit = fn(&mut AddRequest);
    let table: &[(&str, Edit)] = &[
        ("https://", |r| r.url = "http://b.example/".into()),
        ("https://", |r| r.url = "b.example".into()),
        ("https://", |r| r.url = "https://".into()),
        ("user name", |r| r.url = "https://me@b.example/".into()),
        ("fragment", |r| r.url = "https://b.example/#x".into()),
        ("port", |r| r.url = "https://b.example:0/".into()),
        ("port", |r| r.url = "https://b.example:99999/".into()),
        ("https://", |r| r.url = format!("https://b.example/{}", "a".repeat(1100))),
        ("--bundle", |r| r.bundle = None),
        ("--bundle", |r| r.bundle = Some("{}".into())),
        ("--bundle", |r| r.bundle = Some("-----BEGIN CERTIFICATE-----".into())),
        ("--endpoint-spiffe-id", |r| r.endpoint_spiffe_id = Some("b.example/x".into())),
        ("--endpoint-spiffe-id", |r| {
            r.endpoint_spiffe_id = Some("spiffe://c.example/x".into());
        }),
        ("--endpoint-spiffe-id", |r| {
            r.profile = EndpointProfile::HttpsWeb;
            r.endpoint_spiffe_id = Some("spiffe://b.example/x".into());
        }),
        ("--web-roots", |r| r.web_roots_pem = Some(String::new())),
        ("--web-roots", |r| {
            r.profile = EndpointProfile::HttpsWeb;
            r.web_roots_pem = Some("nothing".into());
        }),
    ];
    for (index, (named, edit)) in table.iter().enumerate() {
        let mut request = request();
        edit(&mut request);
        let error = entry::record(&theirs(), &request, NOW).unwrap_err().to_string();
        assert!(error.contains(named), "{index}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(entry::record(&theirs(), &request(), NOW).is_ok());
}

#[test]
fn the_endpoint_of_another_myelin_needs_no_id_and_a_bundle_may_be_pem() {
    let record = entry::record(&theirs(), &request(), NOW).unwrap();
    assert_eq!(record.endpoint_id.as_deref(), Some("spiffe://b.example/myelin/ca"));
    assert_eq!(record.bundle.unwrap().sequence, 4);
    let pem = AddRequest { bundle: Some(bundle(4, &[&root("b")]).to_pem()), ..request() };
    let record = entry::record(&theirs(), &pem, NOW).unwrap();
    assert_eq!(record.bundle.unwrap().sequence, 0, "PEM says none");
    let web = AddRequest { profile: EndpointProfile::HttpsWeb, bundle: None, ..request() };
    let record = entry::record(&theirs(), &web, NOW).unwrap();
    assert_eq!((record.bundle, record.endpoint_id), (None, None));
}

#[test]
fn a_document_is_taken_only_if_it_goes_forward() {
    let (a, b) = (root("a"), root("b"));
    let expired = root_valid("old", 2000, 2010);
    let held = |sequence, root: &CertificateDer<'static>| -> Option<ForeignRecord> {
        let json = json(sequence, &[root]);
        let document = myelin_identity::bundle::SpiffeDocument::read(theirs(), &json).unwrap();
        Some(record(&document, NOW, NOW))
    };
    let cut = |json: String| json[..json.len() / 2].to_owned();
    let table = [
        ("the first", None, json(4, &[&a]), Ok(Verdict::Changed)),
        ("the same", held(4, &a), json(4, &[&a]), Ok(Verdict::Unchanged)),
        ("a new root", held(4, &a), json(5, &[&a, &b]), Ok(Verdict::Changed)),
        ("another root", held(4, &a), json(5, &[&b]), Ok(Verdict::Changed)),
        ("a new number only", held(4, &a), json(5, &[&a]), Ok(Verdict::Changed)),
        ("no numbers at all", held(0, &a), json(0, &[&b]), Ok(Verdict::Changed)),
        ("back", held(4, &a), json(3, &[&a]), Err("went_back")),
        ("back to no number", held(4, &a), json(0, &[&a]), Err("went_back")),
        ("other roots under one number", held(4, &a), json(4, &[&b]), Err("contradiction")),
        ("more roots under one number", held(4, &a), json(4, &[&a, &b]), Err("contradiction")),
        ("cut", held(4, &a), cut(json(5, &[&a])), Err("malformed")),
        ("garbage", held(4, &a), "<html>".to_owned(), Err("malformed")),
        ("nothing", held(4, &a), String::new(), Err("malformed")),
        (
            "no roots",
            held(4, &a),
            r#"{"keys":[],"spiffe_sequence":5}"#.to_owned(),
            Err("malformed"),
        ),
        ("expired", None, json(5, &[&expired]), Err("no_valid_root")),
        ("one expired", None, json(5, &[&expired, &a]), Ok(Verdict::Changed)),
    ];
    for (what, held, said, expected) in table {
        let verdict = judge(&theirs(), held.as_ref(), &said, NOW);
        let seen = verdict.map(|(_, verdict)| verdict).map_err(|unfit| unfit.word());
        assert_eq!(seen, expected, "{what}");
    }
}

#[tokio::test]
async fn set_and_epoch_move_together_and_only_with_a_change() {
    let (_directory, roll) = replica();
    assert_eq!(told(&roll).await.epoch(), 0);
    add(&roll, &request(), NOW).await.unwrap();
    let set = told(&roll).await;
    assert_eq!((set.epoch(), set.bundles().len()), (1, 1));
    assert_eq!(set.bundles()[0].bundle.generation(), 4);
    // A failed fetch touches neither set nor epoch.
    let clock = crate::clock::Clock::new(|| {
        rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW))
    });
    let closed = AddRequest {
        trust_domain: "c.example".to_owned(),
        url: "https://127.0.0.1:1/".to_owned(),
        ..request()
    };
    let domain = add(&roll, &closed, NOW).await.unwrap();
    let failed = refresh(&roll, &domain, &clock).await.unwrap_err();
    assert_eq!(failed.word(), "unreachable");
    let (_, entry) = find(&roll, "c.example").await.unwrap();
    assert_eq!(entry.record.failure.unwrap().attempts, 1);
    let set = told(&roll).await;
    assert_eq!((set.epoch(), set.bundles().len()), (2, 2));
    // Removal is a change, and final.
    remove(&roll, "b.example").await.unwrap();
    let set = told(&roll).await;
    assert_eq!((set.epoch(), set.bundles().len()), (3, 1));
    assert!(matches!(remove(&roll, "b.example").await, Err(FederationError::Unknown(_))));
}

#[tokio::test]
async fn our_own_domain_one_twice_and_one_too_many_are_refused() {
    let (_directory, roll) = replica();
    let ours = AddRequest { trust_domain: "a.example".to_owned(), ..request() };
    let refused = add(&roll, &ours, NOW).await;
    assert!(matches!(refused, Err(FederationError::OwnDomain(_))), "{refused:?}");
    let nameless = AddRequest { trust_domain: "B.example".to_owned(), ..request() };
    let refused = add(&roll, &nameless, NOW).await;
    assert!(matches!(refused, Err(FederationError::Name { .. })), "{refused:?}");
    for n in 0..MAX_FOREIGN {
        let one = AddRequest { trust_domain: format!("d{n}.example"), ..request() };
        add(&roll, &one, NOW).await.unwrap();
    }
    let twice = AddRequest { trust_domain: "d0.example".to_owned(), ..request() };
    let refused = add(&roll, &twice, NOW).await;
    assert!(matches!(refused, Err(FederationError::Known(_))), "{refused:?}");
    let refused = add(&roll, &request(), NOW).await;
    assert!(matches!(refused, Err(FederationError::Flag { .. })), "{refused:?}");
}
