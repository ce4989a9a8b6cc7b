//! Paths: roots, intermediates, lengths, times and signatures above the leaf.
//! Never: what the leaf itself says.

// SPDX-License-Identifier: Apache-2.0

use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use rustls_pki_types::CertificateDer;

use super::super::{Refusal, Role, peer};
use super::{Mesh, word};
use crate::svid::MAX_CHAIN_CERTIFICATES;
use crate::testing::{
    Authority, HOUR, NOW, WEB, bundle, leaf_params, now, root, root_from, root_with, valid,
};

fn judge(chain: &[&CertificateDer<'static>], roots: &[&Authority]) -> &'static str {
    let chain: Vec<_> = chain.iter().map(|der| (*der).clone()).collect();
    word(&peer(&chain, &bundle(roots), now(), Role::Server))
}

#[test]
fn foreign_root_is_refused() {
    let (ours, theirs) = (Mesh::new(), root("another root"));
    let between = theirs.intermediate("intermediate 2");
    let leaf = between.leaf(WEB);
    let chain = [&leaf.der, &between.der];
    assert_eq!(judge(&chain, &[&ours.root]), "untrusted_root");
    assert_eq!(judge(&chain, &[&theirs]), "accepted");
    assert_eq!(judge(&chain, &[&ours.root, &theirs]), "accepted");
    assert_eq!(judge(&[&leaf.der, &between.der, &theirs.der], &[&ours.root]), "untrusted_root");
}

#[test]
fn foreign_root_with_our_names_is_refused() {
    let (ours, theirs) = (Mesh::new(), Mesh::new());
    let leaf = theirs.intermediate.leaf(WEB);
    assert_eq!(judge(&[&leaf.der, &theirs.intermediate.der], &[&ours.root]), "bad_signature");
    assert_eq!(judge(&[&leaf.der, &ours.intermediate.der], &[&ours.root]), "bad_signature");
    assert_eq!(judge(&[&leaf.der, &theirs.intermediate.der], &[&theirs.root]), "accepted");
}

#[test]
fn missing_intermediate_is_refused() {
    let mesh = Mesh::new();
    let leaf = mesh.intermediate.leaf(WEB);
    assert_eq!(judge(&[&leaf.der], &[&mesh.root]), "untrusted_root");
    let direct = mesh.root.leaf(WEB);
    assert_eq!(judge(&[&direct.der], &[&mesh.root]), "accepted");
}

#[test]
fn root_as_leaf_is_refused() {
    let mesh = Mesh::new();
    assert_eq!(judge(&[&mesh.root.der], &[&mesh.root]), "ca_as_leaf");
    assert_eq!(judge(&[&mesh.intermediate.der], &[&mesh.root]), "ca_as_leaf");
}

#[test]
fn leaf_that_signed_a_leaf_is_refused() {
    let mesh = Mesh::new();
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let mut params = leaf_params();
        params.is_ca = is_ca;
        params.distinguished_name.push(rcgen::DnType::CommonName, "greedy leaf");
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &mesh.intermediate.issuer).unwrap().into();
        let greedy = Authority { der, issuer: Issuer::new(params, key) };
        let forged = greedy.leaf("spiffe://td/myelin/ca");
        let chain = [&forged.der, &greedy.der, &mesh.intermediate.der];
        assert_eq!(judge(&chain, &[&mesh.root]), "leaf_as_ca");
        assert_eq!(judge(&[&greedy.der, &mesh.intermediate.der], &[&mesh.root]), "accepted");
    }
}

#[test]
fn broken_path_length_is_refused() {
    let length = |length| {
        move |p: &mut rcgen::CertificateParams| {
            p.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
        }
    };
    for (permitted, expected) in [(0, "path_length"), (1, "accepted")] {
        let root = root("root");
        let upper = root.intermediate_with("upper", length(permitted));
        let lower = upper.intermediate("lower");
        let leaf = lower.leaf(WEB);
        assert_eq!(judge(&[&leaf.der, &lower.der, &upper.der], &[&root]), expected);
        assert_eq!(judge(&[&upper.leaf(WEB).der, &upper.der], &[&root]), "accepted");
    }
    // The root's own path length counts too, though webpki would not ask.
    for (permitted, expected) in [(0, "path_length"), (1, "accepted")] {
        let root = root_with("root", length(permitted));
        let lower = root.intermediate("lower");
        assert_eq!(judge(&[&lower.leaf(WEB).der, &lower.der], &[&root]), expected);
        assert_eq!(judge(&[&root.leaf(WEB).der], &[&root]), "accepted");
    }
}

#[test]
fn issuer_out_of_its_time_is_refused() {
    let root = root("root");
    for (from, until, expected) in [
        (NOW - HOUR, NOW - 1, "expired"),
        (NOW + 1, NOW + HOUR, "not_yet_valid"),
        (NOW - HOUR, NOW, "accepted"),
    ] {
        let between = root.intermediate_with("between", |p| valid(p, from, until));
        let leaf = between.leaf(WEB);
        assert_eq!(judge(&[&leaf.der, &between.der], &[&root]), expected, "{from} {until}");
    }
}

#[test]
fn root_out_of_its_time_is_refused() {
    for (from, until, expected) in [
        (NOW - HOUR, NOW - 1, "expired"),
        (NOW + 1, NOW + HOUR, "not_yet_valid"),
        (NOW - HOUR, NOW, "accepted"),
    ] {
        let root = root_with("root", |p| valid(p, from, until));
        assert_eq!(judge(&[&root.leaf(WEB).der], &[&root]), expected, "{from} {until}");
    }
}

#[test]
fn reissued_root_counts_beside_its_expired_twin() {
    let key = || {
        KeyPair::try_from(
            PKCS8.get_or_init(|| KeyPair::generate().unwrap().serialize_der()).as_slice(),
        )
        .unwrap()
    };
    static PKCS8: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let old = root_from("root", key(), |p| valid(p, NOW - HOUR, NOW - 1));
    let new = root_from("root", key(), |p| valid(p, NOW - HOUR, NOW + HOUR));
    let leaf = new.leaf(WEB);
    for roots in [[&old, &new], [&new, &old]] {
        let peer =
            peer(std::slice::from_ref(&leaf.der), &bundle(&roots), now(), Role::Server).unwrap();
        assert_eq!(peer.root, crate::bundle::RootId::of(&new.der));
    }
    assert_eq!(judge(&[&leaf.der], &[&old]), "expired");
}

#[test]
fn path_ends_with_its_shortest_part() {
    let root = root("root");
    let between = root.intermediate_with("between", |p| valid(p, NOW - HOUR, NOW + 60));
    let chain = [between.leaf(WEB).der, between.der.clone()];
    let peer = peer(&chain, &bundle(&[&root]), now(), Role::Server).unwrap();
    assert_eq!((peer.not_after, peer.path_not_after), (NOW + HOUR, NOW + 60));
}

#[test]
fn intermediate_that_may_not_sign_is_refused() {
    let root = root("root");
    for usages in [vec![], vec![KeyUsagePurpose::DigitalSignature]] {
        let between = root.intermediate_with("between", |p| p.key_usages = usages);
        let leaf = between.leaf(WEB);
        assert_eq!(judge(&[&leaf.der, &between.der], &[&root]), "wrong_usage");
    }
    let narrow = root.intermediate_with("narrow", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(judge(&[&narrow.leaf(WEB).der, &narrow.der], &[&root]), "wrong_usage");
}

#[test]
fn algorithms_other_than_ecdsa_are_refused() {
    for (algorithm, expected) in [
        (&PKCS_ECDSA_P256_SHA256, "accepted"),
        (&PKCS_ECDSA_P384_SHA384, "accepted"),
        (&PKCS_ED25519, "chain_malformed"),
    ] {
        let top = root("root");
        let mut between = top.intermediate("between");
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "between");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        between.der = params.signed_by(&key, &top.issuer).unwrap().into();
        between.issuer = Issuer::new(params, key);
        let leaf = between.leaf(WEB);
        assert_eq!(judge(&[&leaf.der, &between.der], &[&top]), expected, "{algorithm:?}");
    }
}

#[test]
fn chain_beyond_its_bounds_is_refused_unread() {
    let mesh = Mesh::new();
    let leaf = mesh.intermediate.leaf(WEB);
    let chain = |length: usize| {
        let mut chain = vec![leaf.der.clone()];
        chain.resize(length, mesh.intermediate.der.clone());
        peer(&chain, &mesh.bundle, now(), Role::Server)
    };
    assert_eq!(word(&chain(MAX_CHAIN_CERTIFICATES)), "accepted");
    assert_eq!(chain(100), Err(Refusal::ChainTooLong { count: 100 }));
    assert_eq!(word(&chain(MAX_CHAIN_CERTIFICATES + 1)), "chain_too_long");
    assert_eq!(word(&peer(&[], &mesh.bundle, now(), Role::Server)), "no_certificate");

    let junk = CertificateDer::from(vec![0x30; 16 * 1024]);
    assert_eq!(judge(&[&junk], &[&mesh.root]), "chain_malformed");
    assert_eq!(judge(&[&leaf.der, &junk], &[&mesh.root]), "chain_malformed");
    let mut trailing = leaf.der.to_vec();
    trailing.push(0);
    assert_eq!(word(&mesh.judge(&trailing.into())), "chain_malformed");
}
