//! Which entry holds for whom, as tables of values; and entries on a real journal.
//!
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::id::TrustDomain;

use super::super::Reason;
use super::held::Named;
use super::*;
use crate::attest::Attested;
use crate::store::embedded::Embedded;

const NOW: u64 = 1_800_000_000;
const WEB: &str = "spiffe://prod.example/ns/shop/sa/web";

fn granted(id: &str, addresses: AddressSource) -> Granted {
    Granted { spiffe_id: id.to_owned(), addresses, ports: vec![], protocol: String::new() }
}

fn anywhere() -> AddressSource {
    AddressSource::Caller { within: vec![] }
}

fn texts(selectors: &[&str]) -> Vec<String> {
    selectors.iter().map(|text| (*text).to_owned()).collect()
}

fn entry(name: &str, selectors: &[&str], grants: Option<Granted>) -> EntryLine {
    EntryLine { name: name.to_owned(), selectors: texts(selectors), grants, created: 0 }
}

/// A pod, with the addresses of its status if the API server was asked.
fn pod(addresses: &[&str]) -> Attested {
    let shown = ["k8s:ns:shop", "k8s:sa:web", "k8s:pod-name:web-1", "k8s:node-name:n1"];
    Attested {
        attestor: "kubernetes",
        selectors: shown.iter().map(|text| text.parse().unwrap()).collect(),
        bound_to: None,
        service_account: Some(("shop".to_owned(), "web".to_owned())),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        is_remembered: false,
        pod: None,
    }
}

fn chosen(entries: &[EntryLine], namespaces: &[&str], from: &str) -> Result<String, Reason> {
    chosen_for(&pod(&[]), entries, namespaces, from)
}

fn chosen_for(
    attested: &Attested,
    entries: &[EntryLine],
    namespaces: &[&str],
    from: &str,
) -> Result<String, Reason> {
    let named = entries.iter().map(|entry| Named {
        name: entry.name.clone(),
        record: EntryRecord {
            selectors: entry.selectors.clone(),
            grants: entry.grants.clone(),
            created: NOW,
        },
    });
    let registered = Registered::of(named.collect());
    let trust_domain = TrustDomain::parse("prod.example").unwrap();
    let namespaces = texts(namespaces);
    let choice = Choice {
        trust_domain: &trust_domain,
        namespaces: &namespaces,
        remote: from.parse().unwrap(),
    };
    let grant = choose(&registered, attested, &choice)?;
    let addresses: Vec<String> = grant.addresses.iter().map(ToString::to_string).collect();
    Ok(format!(
        "{} {}",
        grant.spiffe_id.trim_start_matches("spiffe://prod.example"),
        addresses.join(" ")
    ))
}

#[test]
fn most_exact_entry_holds_and_a_deny_entry_wins_over_all() {
    let give = |name, selectors: &[&str], path: &str| {
        let id = format!("spiffe://prod.example{path}");
        entry(name, selectors, Some(granted(&id, anywhere())))
    };
    let namespace = give("ns", &["k8s:ns:shop"], "/ns/shop/sa/any");
    let account = give("sa", &["k8s:ns:shop", "k8s:sa:web"], "/ns/shop/sa/web");
    let other = give("other", &["k8s:ns:shop", "k8s:sa:db"], "/ns/shop/sa/db");
    let rival = give("rival", &["k8s:ns:shop", "k8s:pod-name:web-1"], "/ns/shop/sa/rival");
    let deny = entry("deny", &["k8s:node-name:n1"], None);
    let deny_else = entry("deny-else", &["k8s:node-name:n2"], None);
    let said = |entries: &[&EntryLine]| {
        let entries: Vec<EntryLine> = entries.iter().map(|entry| (*entry).clone()).collect();
        chosen(&entries, &[], "10.1.0.5")
    };
    let ok = |path: &str| Ok(format!("{path} 10.1.0.5"));
    assert_eq!(said(&[]), Err(Reason::EntryMissing));
    assert_eq!(said(&[&other]), Err(Reason::EntryMissing));
    assert_eq!(said(&[&namespace, &other, &deny_else]), ok("/ns/shop/sa/any"));
    assert_eq!(said(&[&namespace, &account]), ok("/ns/shop/sa/web"));
    assert_eq!(said(&[&namespace, &account, &rival]), Err(Reason::EntryAmbiguous));
    assert_eq!(said(&[&namespace, &account, &deny]), Err(Reason::EntryDenied));
}

#[test]
fn allowed_namespace_gives_each_service_account_its_own_id_unless_an_entry_says_otherwise() {
    assert_eq!(chosen(&[], &["shop"], "10.1.0.5"), Ok("/ns/shop/sa/web 10.1.0.5".to_owned()));
    assert_eq!(chosen(&[], &["bank"], "10.1.0.5"), Err(Reason::EntryMissing));
    assert_eq!(chosen(&[], &["sho"], "10.1.0.5"), Err(Reason::EntryMissing));
    let deny = entry("deny", &["k8s:sa:web"], None);
    assert_eq!(chosen(&[deny], &["shop"], "10.1.0.5"), Err(Reason::EntryDenied));
    let other = granted("spiffe://prod.example/ns/shop/sa/frontend", anywhere());
    let renamed = entry("renamed", &["k8s:sa:web"], Some(other));
    let said = chosen(&[renamed], &["shop"], "10.1.0.5");
    assert_eq!(said, Ok("/ns/shop/sa/frontend 10.1.0.5".to_owned()));
}

#[test]
fn addresses_come_from_where_the_entry_says_or_not_at_all() {
    let said = |addresses: AddressSource, from: &str| {
        chosen(&[entry("web", &["k8s:sa:web"], Some(granted(WEB, addresses)))], &[], from)
    };
    let within = |range: &str| AddressSource::Caller { within: texts(&["fd00::/8", range]) };
    let listed = AddressSource::Listed(vec!["10.7.7.7".parse().unwrap()]);
    let at = |addresses: &str| Ok(format!("/ns/shop/sa/web {addresses}"));
    assert_eq!(said(listed, "10.1.0.5"), at("10.7.7.7"));
    assert_eq!(said(within("10.1.0.0/16"), "10.1.0.5"), at("10.1.0.5"));
    assert_eq!(said(within("10.1.0.0/16"), "::ffff:10.1.0.5"), at("10.1.0.5"));
    assert_eq!(said(within("10.1.0.0/16"), "10.2.0.5"), Err(Reason::AddressUnknown));
    let shown = pod(&["10.9.9.9"]);
    let entry = entry("web", &["k8s:sa:web"], Some(granted(WEB, AddressSource::Evidence)));
    assert_eq!(chosen_for(&shown, &[entry], &[], "10.1.0.5"), at("10.9.9.9"));
}

#[test]
fn pod_is_where_its_status_says_and_not_where_its_request_comes_from() {
    let shown = pod(&["10.1.2.3", "fd00::3"]);
    let within = |ranges: &[&str]| {
        let from = AddressSource::Caller { within: texts(ranges) };
        let entry = entry("web", &["k8s:sa:web"], Some(granted(WEB, from)));
        chosen_for(&shown, &[entry], &[], "192.0.2.9")
    };
    let both = Ok("/ns/shop/sa/web 10.1.2.3 fd00::3".to_owned());
    assert_eq!(chosen_for(&shown, &[], &["shop"], "192.0.2.9"), both);
    assert_eq!(within(&[]), both);
    assert_eq!(within(&["10.1.0.0/16", "fd00::/8"]), both);
    assert_eq!(within(&["10.1.0.0/16"]), Err(Reason::AddressUnknown));
    assert_eq!(within(&["192.0.2.0/24"]), Err(Reason::AddressUnknown));
}

fn journal() -> (tempfile::TempDir, Journal, TrustBundle) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(Arc::new(Embedded::open(&dir.path().join("store.redb")).unwrap()));
    (dir, journal, tokens::tests::bundle())
}

#[tokio::test]
async fn entries_are_made_listed_shown_and_deleted() {
    let (_dir, journal, bundle) = journal();
    let web = entry("web", &["k8s:sa:web", "k8s:ns:shop"], Some(granted(WEB, anywhere())));
    let made = create(&journal, &bundle, &web, NOW).await.unwrap();
    assert_eq!(made.selectors, texts(&["k8s:ns:shop", "k8s:sa:web"]));
    let deny = entry("deny", &["k8s:node-name:n1"], None);
    create(&journal, &bundle, &deny, NOW).await.unwrap();
    let names = |lines: Vec<EntryLine>| -> Vec<String> {
        lines.into_iter().map(|line| line.name).collect()
    };
    assert_eq!(names(list(&journal).await.unwrap()), ["deny", "web"]);
    assert_eq!(show(&journal, "web").await.unwrap(), made);
    let twice = create(&journal, &bundle, &web, NOW).await.unwrap_err();
    assert!(matches!(twice, EntryError::Exists(_)), "{twice}");
    delete(&journal, "web").await.unwrap();
    for gone in [show(&journal, "web").await, delete(&journal, "web").await] {
        assert!(matches!(gone, Err(EntryError::Unknown(_))));
    }
    assert_eq!(names(list(&journal).await.unwrap()), ["deny"]);
}

#[tokio::test]
async fn wrong_entries_are_refused_with_the_fix() {
    let (_dir, journal, bundle) = journal();
    let give = |id: &str| Some(granted(id, anywhere()));
    let ranges = AddressSource::Caller { within: texts(&["10.0.0.0/33"]) };
    let too_many = vec!["k8s:ns:a"; MAX_SELECTORS + 1];
    for (wrong, expected) in [
        (entry("Web", &["k8s:ns:a"], give(WEB)), "a-z"),
        (entry("", &["k8s:ns:a"], give(WEB)), "a-z"),
        (entry("w", &[], give(WEB)), "selectors"),
        (entry("w", &too_many, give(WEB)), "selectors"),
        (entry("w", &["k8s:ns:a", "k8s:ns:a"], give(WEB)), "each once"),
        (entry("w", &["k8s:ns:*"], give(WEB)), "no patterns"),
        (entry("w", &["k8s:pod-label:x"], give(WEB)), "no kind"),
        (entry("w", &["k8s:ns:a", "x509:subject:cn:b"], give(WEB)), "never hold together"),
        (entry("w", &["k8s:ns:a"], give("web")), "no SPIFFE ID"),
        (entry("w", &["k8s:ns:a"], give("spiffe://prod.example/myelin/ca")), "reserved"),
        (entry("w", &["k8s:ns:a"], give("spiffe://else.example/ns/a/sa/b")), "another trust"),
        (entry("w", &["k8s:ns:a"], Some(granted(WEB, ranges))), "no range"),
        (entry("w", &["k8s:ns:a"], Some(granted(WEB, AddressSource::Evidence))), "caller"),
        (entry("w", &["k8s:ns:a"], Some(granted(WEB, AddressSource::Listed(vec![])))), "1 to 16"),
    ] {
        let error = create(&journal, &bundle, &wrong, NOW).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    assert!(list(&journal).await.unwrap().is_empty());
}
