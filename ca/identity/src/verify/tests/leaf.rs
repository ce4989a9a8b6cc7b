//! What a leaf says: names, usages, key, times.
//! Never: broken chains, those are in `chain`.

// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};

use super::super::{Refusal, Role, peer};
use super::{Mesh, word};
use crate::testing::{HOUR, NOW, WEB, at, leaf_params, raw_sans, uri, valid};

type Edit = fn(&mut CertificateParams);

fn judge_all(table: &[(&str, &str, Edit)]) {
    let mesh = Mesh::new();
    for &(what, expected, edit) in table {
        let leaf = mesh.intermediate.leaf_with(edit);
        assert_eq!(word(&mesh.judge(&leaf.der)), expected, "{what}");
    }
}

#[test]
fn good_leaf_is_accepted_in_both_roles() {
    let mesh = Mesh::new();
    let leaf = mesh.intermediate.leaf(WEB);
    for role in [Role::Client, Role::Server] {
        let peer = mesh.judge_as(&leaf.der, role).unwrap();
        assert_eq!(peer.id.as_str(), WEB);
        assert_eq!(peer.serial.to_string(), "1122");
        assert_eq!((peer.not_before, peer.not_after), (NOW - HOUR, NOW + HOUR));
        assert_eq!(peer.path_not_after, NOW + HOUR);
        let addresses: Vec<String> = peer.ip_sans.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "fd00::1"]);
        assert!(mesh.bundle.holds_root(&peer.root));
    }
}

#[test]
fn leaf_with_a_wrong_name_is_refused_in_that_word() {
    let table: &[(&str, &str, Edit)] = &[
        ("nothing", "accepted", |_| {}),
        ("a DNS SAN beside the ID", "accepted", |p| {
            p.subject_alt_names.push(SanType::DnsName("web.shop".try_into().unwrap()));
        }),
        ("other trust domain", "wrong_trust_domain", |p| {
            p.subject_alt_names[0] = uri("spiffe://td2/x")
        }),
        ("subdomain", "wrong_trust_domain", |p| p.subject_alt_names[0] = uri("spiffe://a.td/x")),
        ("no SAN at all", "no_spiffe_id", |p| p.subject_alt_names.clear()),
        ("addresses only", "no_spiffe_id", |p| drop(p.subject_alt_names.remove(0))),
        ("ID as DNS SAN", "no_spiffe_id", |p| {
            p.subject_alt_names = vec![SanType::DnsName(WEB.try_into().unwrap())];
        }),
        ("ID in the common name", "no_spiffe_id", |p| {
            p.subject_alt_names.clear();
            p.distinguished_name.push(DnType::CommonName, WEB);
        }),
        ("two IDs", "many_uris", |p| p.subject_alt_names.push(uri("spiffe://td/other"))),
        ("the same ID twice", "many_uris", |p| p.subject_alt_names.push(uri(WEB))),
        ("an ID and a web address", "many_uris", |p| p.subject_alt_names.push(uri("https://a/"))),
        ("an ID and a URI that is no text", "many_uris", |p| {
            raw_sans(p, &[(6, WEB.as_bytes()), (6, b"\xff\xfe")]);
        }),
        ("a URI that is no text", "malformed_id", |p| raw_sans(p, &[(6, b"spiffe://td/\xff")])),
        ("an address of three bytes", "chain_malformed", |p| {
            raw_sans(p, &[(6, WEB.as_bytes()), (7, &[10, 0, 0])]);
        }),
    ];
    judge_all(table);
}

#[test]
fn leaf_for_a_wrong_use_or_time_is_refused_in_that_word() {
    let table: &[(&str, &str, Edit)] = &[
        ("CA:TRUE", "ca_as_leaf", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ("explicitly no CA", "accepted", |p| p.is_ca = IsCa::ExplicitNoCa),
        ("no key usage", "wrong_usage", |p| p.key_usages.clear()),
        ("key agreement only", "wrong_usage", |p| {
            p.key_usages = vec![KeyUsagePurpose::KeyAgreement]
        }),
        ("may sign certificates", "wrong_usage", |p| {
            p.key_usages.push(KeyUsagePurpose::KeyCertSign)
        }),
        ("may sign CRLs", "wrong_usage", |p| p.key_usages.push(KeyUsagePurpose::CrlSign)),
        ("no extended key usage", "wrong_usage", |p| p.extended_key_usages.clear()),
        ("any usage", "wrong_usage", |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]
        }),
        ("already over", "expired", |p| valid(p, NOW - HOUR, NOW - 1)),
        ("ends this second", "accepted", |p| valid(p, NOW - HOUR, NOW)),
        ("begins next second", "not_yet_valid", |p| valid(p, NOW + 1, NOW + HOUR)),
        ("begins this second", "accepted", |p| valid(p, NOW, NOW + HOUR)),
    ];
    judge_all(table);
}

#[test]
fn malformed_id_in_a_certificate_is_refused() {
    let overlong = format!("spiffe://td/{}", "x".repeat(2048));
    let mesh = Mesh::new();
    for id in [
        "spiffe://td:8443/ns/shop/sa/web",
        "spiffe://td/ns/shop/sa/web?a=b",
        "spiffe://td/ns/shop/sa/web#a",
        "spiffe://td/%2e%2e/web",
        "spiffe://td/ns/../web",
        "spiffe://td//web",
        "spiffe://TD/ns/shop/sa/web",
        "spiffe://td/ns/shop/sa/web\0",
        "spiffe://td/ns/shop/sa/web/",
        "spiffe://td",
        "https://td/ns/shop/sa/web",
        &overlong,
    ] {
        let leaf = mesh.intermediate.leaf_with(|p| raw_sans(p, &[(6, id.as_bytes())]));
        assert_eq!(word(&mesh.judge(&leaf.der)), "malformed_id", "{id:?}");
    }
    let good = mesh.intermediate.leaf_with(|p| raw_sans(p, &[(6, WEB.as_bytes())]));
    assert_eq!(word(&mesh.judge(&good.der)), "accepted");
}

#[test]
fn usage_has_to_fit_the_role() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mesh = Mesh::new();
    for (usage, role, expected) in [
        (ClientAuth, Role::Client, "accepted"),
        (ClientAuth, Role::Server, "wrong_usage"),
        (ServerAuth, Role::Server, "accepted"),
        (ServerAuth, Role::Client, "wrong_usage"),
    ] {
        let leaf = mesh.intermediate.leaf_with(|p| p.extended_key_usages = vec![usage.clone()]);
        assert_eq!(word(&mesh.judge_as(&leaf.der, role)), expected, "{usage:?} as {role:?}");
    }
}

#[test]
fn key_of_another_curve_is_refused() {
    let mesh = Mesh::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let leaf = mesh.intermediate.leaf_from(key, |_| {});
    assert_eq!(word(&mesh.judge(&leaf.der)), "wrong_key");
}

#[test]
fn too_many_names_are_refused() {
    let mesh = Mesh::new();
    let with = |count: u8| {
        mesh.intermediate.leaf_with(|p| {
            for last in 3..count {
                p.subject_alt_names.push(SanType::IpAddress([10, 0, 1, last].into()));
            }
        })
    };
    assert_eq!(word(&mesh.judge(&with(64).der)), "accepted");
    assert_eq!(word(&mesh.judge(&with(65).der)), "chain_malformed");
}

#[test]
fn wrong_clock_is_named_with_all_three_times() {
    let mesh = Mesh::new();
    let leaf = mesh.intermediate.leaf(WEB);
    let chain = [leaf.der, mesh.intermediate.der.clone()];
    for (now, expected) in [
        (NOW + 30, "accepted"),
        (NOW - 30, "accepted"),
        (NOW + HOUR + 1, "expired"),
        (NOW - HOUR - 1, "not_yet_valid"),
    ] {
        let verdict = peer(&chain, &mesh.bundle, at(now), Role::Server);
        assert_eq!(word(&verdict), expected);
        if let Err(refusal) = verdict {
            let line = refusal.to_string();
            for part in [
                format!("now {now}"),
                format!("notBefore {}", NOW - HOUR),
                format!("notAfter {}", NOW + HOUR),
            ] {
                assert!(line.contains(&part), "{line}");
            }
        }
    }
}

#[test]
fn names_are_compared_whole_in_verdicts() {
    let mesh = Mesh::new();
    let id = |text: &str| mesh.judge(&mesh.intermediate.leaf(text).der).unwrap().id;
    assert_ne!(id("spiffe://td/ns/n/sa/a.b"), id("spiffe://td/ns/n/sa/aXb"));
    assert_ne!(id("spiffe://td/ns/n/sa/web"), id("spiffe://td/ns/n/sa/web2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn changed_certificate_is_refused(position in any::<prop::sample::Index>(), flip in 1u8..) {
        let mesh = Mesh::new();
        let leaf = mesh.intermediate.leaf(WEB);
        let mut der = leaf.der.to_vec();
        let at = position.index(der.len());
        der[at] ^= flip;
        let verdict = mesh.judge(&der.into());
        prop_assert!(verdict.is_err(), "byte {} changed by {}", at, flip);
    }

    #[test]
    fn arbitrary_bytes_are_refused(der: Vec<u8>) {
        let verdict = Mesh::new().judge(&der.into());
        prop_assert!(
            matches!(verdict, Err(Refusal::ChainMalformed { .. })),
            "{:?}", verdict
        );
    }
}

#[test]
fn leaf_of_the_suite_has_nothing_wrong() {
    assert_eq!(leaf_params().subject_alt_names.len(), 3);
}
