//! Pods and machines over the real API: first issues, renewals and refusals of each attestor, and
//! what registration entries make of them (T38, T56).
//!
//! Never: a token case that the attestor's own tables have.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::*;
use myelin_ca::authority::registration::EntryLine;
use myelin_ca::authority::revocation::{RevokeRequest, Subject};
use myelin_ca::journal::{AddressSource, Granted};
use myelin_ca::operator::{Answer, Ask};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tonic::Code;

const REFUSED: Code = Code::PermissionDenied;
const LATER: Code = Code::Unavailable;
const DB: &str = "spiffe://prod.example/ns/shop/sa/db";

async fn entry(ca: &TestCa, name: &str, selectors: &[&str], id: Option<&str>, at: AddressSource) {
    let grants = id.map(|id| Granted {
        spiffe_id: id.to_owned(),
        addresses: at,
        ports: vec![],
        protocol: String::new(),
    });
    let selectors = selectors.iter().map(|text| (*text).to_owned()).collect();
    let line = EntryLine { name: name.to_owned(), selectors, grants, created: 0 };
    ca.running.ask(Ask::CreateEntry(line)).await.unwrap();
}

fn caller() -> AddressSource {
    AddressSource::Caller { within: vec!["127.0.0.0/8".to_owned()] }
}

#[tokio::test]
async fn pod_gets_the_id_of_its_service_account_and_renews_with_a_fresh_token_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let ca = TestCa::start_attesting(attest(Some(&cluster), None), &["shop"]).await;
    let (host, now) = (Host::new(), ca.clock().seconds());
    let token = cluster.token("shop", "web", "uid-1", now);
    let by = By::Pod(&token, None);
    let first = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    assert_eq!(first.svid().id().as_str(), WEB);
    assert_eq!(first.svid().leaf().ip_sans, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    ca.advance(Duration::from_secs(12 * 3600));
    let stale = issue(&ca.target(), &host, By::Pod(&token, Some(&first)), &Intent::new()).await;
    assert_refused(stale, REFUSED, "jwt_expired");
    let fresh = cluster.token("shop", "web", "uid-1", ca.clock().seconds());
    let by = By::Pod(&fresh, Some(&first));
    let second = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    assert_eq!((second.lineage().id, second.lineage().generation), (first.lineage().id, 2));
    // The sidecar lost its SVID (a restart): token and host key begin a new lineage.
    let again = issue(&ca.target(), &host, By::Pod(&fresh, None), &Intent::new()).await.unwrap();
    assert_ne!(again.lineage().id, second.lineage().id);
}

#[tokio::test]
async fn pod_without_its_token_is_refused_at_every_issue() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let ca = TestCa::start_attesting(attest(Some(&cluster), None), &["shop"]).await;
    let (host, now) = (Host::new(), ca.clock().seconds());
    let token = cluster.token("shop", "web", "uid-1", now);
    let held = issue(&ca.target(), &host, By::Pod(&token, None), &Intent::new()).await.unwrap();
    for by in [By::HostAlone, By::Renewal(&held)] {
        let refused = issue(&ca.target(), &host, by, &Intent::new()).await;
        assert_refused(refused, REFUSED, "evidence_missing");
    }
    // A renewal shows the SVID as well, and only its own.
    let mut bare = ca.target().connect(None).await;
    let intent = Intent::new();
    let unproven = request(&bare, &host, &By::Pod(&token, Some(&held)), &intent);
    assert_refused(send(&mut bare, unproven, &intent).await, REFUSED, "svid_not_presented");
}

/// T38: the token was copied out of the pod.
#[tokio::test]
async fn token_of_a_pod_with_another_host_key_is_a_replay() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let ca = TestCa::start_attesting(attest(Some(&cluster), None), &["shop"]).await;
    let now = ca.clock().seconds();
    let token = cluster.token("shop", "web", "uid-1", now);
    let host = Host::new();
    issue(&ca.target(), &host, By::Pod(&token, None), &Intent::new()).await.unwrap();
    let thief = issue(&ca.target(), &Host::new(), By::Pod(&token, None), &Intent::new()).await;
    assert_refused(thief, REFUSED, "jwt_replayed");
    let fresh = cluster.token("shop", "web", "uid-1", now + 5);
    let thief = issue(&ca.target(), &Host::new(), By::Pod(&fresh, None), &Intent::new()).await;
    assert_refused(thief, REFUSED, "jwt_replayed");
    issue(&ca.target(), &host, By::Pod(&fresh, None), &Intent::new()).await.unwrap();
}

/// A lost reply is asked for again with the same request key, whatever token is fresh by then.
#[tokio::test]
async fn lost_reply_to_a_pod_is_repeated_under_another_token_and_is_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let ca = TestCa::start_attesting(attest(Some(&cluster), None), &["shop"]).await;
    let (host, now) = (Host::new(), ca.clock().seconds());
    let (one, two) = (
        cluster.token("shop", "web", "uid-1", now),
        cluster.token("shop", "web", "uid-1", now + 1),
    );
    let held = issue(&ca.target(), &host, By::Pod(&one, None), &Intent::new()).await.unwrap();
    let intent = Intent::new();
    let lost = issue(&ca.target(), &host, By::Pod(&one, Some(&held)), &intent).await.unwrap();
    let again = issue(&ca.target(), &host, By::Pod(&two, Some(&held)), &intent).await.unwrap();
    assert_eq!(lost.serial(), again.serial());
    let copied = issue(&ca.target(), &host, By::Pod(&two, Some(&held)), &Intent::new()).await;
    assert_refused(copied, REFUSED, "alarm");
}

#[tokio::test]
async fn entries_decide_who_gets_which_id_and_their_changes_hold_at_the_next_issue() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let ca = TestCa::start_attesting(attest(Some(&cluster), None), &[]).await;
    let (host, now) = (Host::new(), ca.clock().seconds());
    let token = cluster.token("shop", "web", "uid-1", now);
    let asked = async |held: Option<&Held>| {
        issue(&ca.target(), &host, By::Pod(&token, held), &Intent::new()).await
    };
    assert_refused(asked(None).await, REFUSED, "entry_missing");
    entry(&ca, "web", &["k8s:ns:shop", "k8s:sa:web"], Some(WEB), caller()).await;
    let held = asked(None).await.unwrap();
    assert_eq!(held.svid().id().as_str(), WEB);
    entry(&ca, "quarantine", &["k8s:node-name:node-1"], None, caller()).await;
    assert_refused(asked(Some(&held)).await, REFUSED, "entry_denied");
    ca.running.ask(Ask::DeleteEntry("quarantine".to_owned())).await.unwrap();
    let held = asked(Some(&held)).await.unwrap();
    let exact = ["k8s:ns:shop", "k8s:sa:web", "k8s:pod-uid:uid-1"];
    entry(&ca, "exact", &exact, Some(DB), caller()).await;
    assert_refused(asked(Some(&held)).await, REFUSED, "id_changed");
    assert_eq!(asked(None).await.unwrap().svid().id().as_str(), DB);
    entry(
        &ca,
        "rival",
        &["k8s:ns:shop", "k8s:sa:web", "k8s:node-name:node-1"],
        Some(WEB),
        caller(),
    )
    .await;
    assert_refused(asked(None).await, REFUSED, "entry_ambiguous");
    for name in ["exact", "rival", "web"] {
        ca.running.ask(Ask::DeleteEntry(name.to_owned())).await.unwrap();
    }
    let elsewhere = AddressSource::Caller { within: vec!["10.0.0.0/8".to_owned()] };
    entry(&ca, "elsewhere", &["k8s:sa:web"], Some(WEB), elsewhere).await;
    assert_refused(asked(None).await, REFUSED, "address_unknown");
}

#[tokio::test]
async fn machine_gets_the_id_of_its_entry_and_renews_with_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let corporation = Corporation::new(dir.path(), "corporation");
    let ca = TestCa::start_attesting(attest(None, Some(&corporation)), &[]).await;
    let host = Host::new();
    let machine = corporation.machine("vm-1.example.org", |_| {});
    let missing = issue(&ca.target(), &host, By::Machine(&machine, None), &Intent::new()).await;
    assert_refused(missing, REFUSED, "entry_missing");
    entry(&ca, "vm", &["x509:san:dns:vm-1.example.org"], Some(DB), AddressSource::Evidence).await;
    let by = By::Machine(&machine, None);
    let first = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    assert_eq!(first.svid().id().as_str(), DB);
    assert_eq!(first.svid().leaf().ip_sans, ["10.0.0.9".parse::<std::net::IpAddr>().unwrap()]);
    let by = By::Machine(&machine, Some(&first));
    let second = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    assert_eq!(second.lineage().generation, 2);
    for by in [By::HostAlone, By::Renewal(&second)] {
        let refused = issue(&ca.target(), &host, by, &Intent::new()).await;
        assert_refused(refused, REFUSED, "evidence_missing");
    }
    // Another machine under the same name, at the same addresses: the first one lives there.
    let other = corporation.machine("vm-1.example.org", |_| {});
    let by = By::Machine(&other, None);
    assert_refused(
        issue(&ca.target(), &Host::new(), by, &Intent::new()).await,
        LATER,
        "address_taken",
    );
}

#[tokio::test]
async fn certificate_that_proves_no_machine_of_ours_is_refused_in_that_word() {
    let dir = tempfile::tempdir().unwrap();
    let corporation = Corporation::new(dir.path(), "corporation");
    let foreign = Corporation::new(dir.path(), "foreign");
    let ca = TestCa::start_attesting(attest(None, Some(&corporation)), &[]).await;
    let name = "vm-1.example.org";
    entry(&ca, "vm", &["x509:san:dns:vm-1.example.org"], Some(DB), AddressSource::Evidence).await;
    let day = |by: i64| {
        let base = rcgen::date_time_ymd(2000, 1, 1);
        base + Duration::from_secs(u64::try_from(by).unwrap())
    };
    let expired = corporation.machine(name, |params| params.not_after = day(1000));
    let server = corporation.machine(name, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let useless = corporation.machine(name, |params| params.extended_key_usages.clear());
    let nameless = corporation.machine(name, |params| {
        params.subject_alt_names = vec![SanType::DnsName("vm-2.example.org".try_into().unwrap())];
    });
    let mut forged = foreign.machine(name, |_| {});
    forged.chain.push(corporation.root());
    for (machine, word) in [
        (foreign.machine(name, |_| {}), "machine_untrusted"),
        (forged, "machine_untrusted"),
        (expired, "machine_expired"),
        (server, "machine_usage"),
        (useless, "machine_usage"),
        (nameless, "entry_missing"),
    ] {
        let by = By::Machine(&machine, None);
        assert_refused(issue(&ca.target(), &Host::new(), by, &Intent::new()).await, REFUSED, word);
    }
    // A certificate without its key, and a signature of another connection.
    let (real, thief) = (corporation.machine(name, |_| {}), corporation.machine(name, |_| {}));
    let (host, intent) = (Host::new(), Intent::new());
    let mut connected = ca.target().connect(None).await;
    let mut copied = request(&connected, &host, &By::Machine(&thief, None), &intent);
    replace_chain(&mut copied, &real);
    assert_refused(send(&mut connected, copied, &intent).await, REFUSED, "machine_signature");
    let elsewhere = ca.target().connect(None).await;
    let mut relayed = request(&elsewhere, &host, &By::Machine(&real, None), &intent);
    let mut connected = ca.target().connect(None).await;
    relayed.host_signature =
        request(&connected, &host, &By::Machine(&real, None), &intent).host_signature;
    assert_refused(send(&mut connected, relayed, &intent).await, REFUSED, "machine_signature");
    issue(&ca.target(), &host, By::Machine(&real, None), &intent).await.unwrap();
}

async fn revoke_serial(ca: &TestCa, held: &Held) -> u64 {
    let serial = held.svid().leaf().serial.to_string();
    let request = RevokeRequest { subject: Subject::Serial(serial), reason: String::new() };
    let Answer::Revoked(revoked) = ca.running.ask(Ask::Revoke(request)).await.unwrap() else {
        panic!()
    };
    ca.running.authority().hear_denials().await.unwrap();
    revoked.number
}

#[tokio::test]
async fn revoked_machine_does_not_come_back_with_another_host_key() {
    let dir = tempfile::tempdir().unwrap();
    let corporation = Corporation::new(dir.path(), "corporation");
    let mut ca = TestCa::start_attesting(attest(None, Some(&corporation)), &[]).await;
    let name = "vm-1.example.org";
    entry(&ca, "vm", &["x509:san:dns:vm-1.example.org"], Some(DB), AddressSource::Evidence).await;
    let machine = corporation.machine(name, |_| {});
    let by = By::Machine(&machine, None);
    let held = issue(&ca.target(), &Host::new(), by, &Intent::new()).await.unwrap();
    revoke_serial(&ca, &held).await;
    // At once, after the denial has cleared itself, and after the sweep of all that has ended.
    for passed in [0, 25 * 3600, 8 * 24 * 3600] {
        ca.advance(Duration::from_secs(passed));
        ca = ca.restart().await;
        ca.running.authority().sweep().await.unwrap();
        let by = By::Machine(&machine, None);
        let back = issue(&ca.target(), &Host::new(), by, &Intent::new()).await;
        assert_refused(back, REFUSED, "host_denied");
    }
    // Another machine of that name is let in; so is this kind again once its denial is undone.
    let other = corporation.machine(name, |_| {});
    let asked =
        async || issue(&ca.target(), &Host::new(), By::Machine(&other, None), &Intent::new()).await;
    let held = asked().await.unwrap();
    let number = revoke_serial(&ca, &held).await;
    assert_refused(asked().await, REFUSED, "host_denied");
    ca.running.ask(Ask::UndoRevocation(number)).await.unwrap();
    ca.running.authority().hear_denials().await.unwrap();
    assert_refused(asked().await, LATER, "machine_bound");
}

#[tokio::test]
async fn machine_stands_under_one_host_key_at_a_time_and_may_lose_it() {
    let dir = tempfile::tempdir().unwrap();
    let corporation = Corporation::new(dir.path(), "corporation");
    let ca = TestCa::start_attesting(attest(None, Some(&corporation)), &[]).await;
    entry(&ca, "vm", &["x509:san:dns:vm-1.example.org"], Some(DB), AddressSource::Evidence).await;
    let machine = corporation.machine("vm-1.example.org", |_| {});
    let asked = async |ca: &TestCa, host: &Host| {
        issue(&ca.target(), host, By::Machine(&machine, None), &Intent::new()).await
    };
    let (first, second) = (Host::new(), Host::new());
    asked(&ca, &first).await.unwrap();
    asked(&ca, &first).await.unwrap();
    assert_refused(asked(&ca, &second).await, LATER, "machine_bound");
    ca.advance(Duration::from_secs(25 * 3600));
    let ca = ca.restart().await;
    asked(&ca, &second).await.unwrap();
    assert_refused(asked(&ca, &first).await, LATER, "machine_bound");
}

fn replace_chain(request: &mut myelin_identity::issuance::proto::IssueRequest, by: &Machine) {
    use myelin_identity::issuance::proto::issue_request::Attestation;
    let Some(Attestation::Machine(machine)) = &mut request.attestation else { panic!() };
    machine.chain_der = by.chain.iter().map(|der| der.to_vec()).collect();
}

#[tokio::test]
async fn revoked_id_is_refused_to_pods_and_machines_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let ca = TestCa::start_attesting(attest(Some(&cluster), None), &["shop"]).await;
    let (host, now) = (Host::new(), ca.clock().seconds());
    let token = cluster.token("shop", "web", "uid-1", now);
    let held = issue(&ca.target(), &host, By::Pod(&token, None), &Intent::new()).await.unwrap();
    let request = RevokeRequest { subject: Subject::Id(WEB.to_owned()), reason: String::new() };
    let Answer::Revoked(revoked) = ca.running.ask(Ask::Revoke(request)).await.unwrap() else {
        panic!()
    };
    assert_eq!(revoked.hosts, 1);
    ca.running.authority().hear_denials().await.unwrap();
    let by = By::Pod(&token, None);
    assert_refused(issue(&ca.target(), &host, by, &Intent::new()).await, REFUSED, "id_denied");
    // Another pod of the same service account is the same ID.
    let other = cluster.token("shop", "web", "uid-2", now);
    let by = By::Pod(&other, None);
    assert_refused(
        issue(&ca.target(), &Host::new(), by, &Intent::new()).await,
        REFUSED,
        "id_denied",
    );
    // And the SVID at hand opens nothing: it is refused before its renewal is looked at.
    let renewal = issue(&ca.target(), &host, By::Pod(&token, Some(&held)), &Intent::new()).await;
    assert_eq!(reason(&renewal.err().unwrap()), "denied");
}
