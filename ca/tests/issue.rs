//! Who gets a certificate from a real CA over its real API, and what is in it: T36, T37, T39, T44,
//! T55.
//!
//! Never: sleeps, or reads the CA's memory.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::*;
use myelin_ca::template::MAX_LIFETIME;
use myelin_identity::bundle::BundleHash;
use myelin_identity::verify::{Role, peer};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tonic::Code;

#[tokio::test]
async fn join_token_yields_a_verifiable_svid_with_the_granted_id_and_addresses() {
    let ca = TestCa::start().await;
    let token = ca.try_token(WEB, &["10.0.0.7", "fd00::7"], &[]).await.unwrap();
    let held = issue(&ca.target(), &Host::new(), By::Token(&token), &Intent::new()).await.unwrap();
    let seen = peer(&held.response.chain, &ca.bundle(), ca.clock().now(), Role::Server).unwrap();
    assert_eq!(seen.id.as_str(), WEB);
    assert_eq!(
        seen.ip_sans,
        ["10.0.0.7".parse::<std::net::IpAddr>().unwrap(), "fd00::7".parse().unwrap()]
    );
    assert_eq!(held.lineage().generation, 1);
    assert_eq!(held.response.bundle, *ca.bundle());
    let now = ca.clock().seconds();
    assert!(seen.not_before <= now && seen.not_after <= now + MAX_LIFETIME.as_secs());
}

#[tokio::test]
async fn what_a_csr_asks_for_is_not_in_the_certificate() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(SanType::URI("spiffe://prod.example/myelin/ca".try_into().unwrap()));
    params.subject_alt_names.push(SanType::IpAddress("10.9.9.9".parse().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.distinguished_name.push(DnType::CommonName, "admin");
    let mut intent = Intent::new();
    intent.csr_der = params.serialize_request(&intent.svid_key).unwrap().der().to_vec();

    let held = issue(&ca.target(), &Host::new(), By::Token(&token), &intent).await.unwrap();
    let leaf = &held.response.chain[0];
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    assert_eq!(parsed.subject().iter().count(), 0);
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.general_names.len(), 2, "{names:?}");
    let usages = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.client_auth && usages.server_auth && !usages.code_signing);
    let seen = peer(&held.response.chain, &ca.bundle(), ca.clock().now(), Role::Client).unwrap();
    assert_eq!(seen.id.as_str(), WEB);
}

#[tokio::test]
async fn fifty_concurrent_uses_of_a_token_yield_exactly_one_certificate() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let uses: Vec<_> = (0..50)
        .map(|_| {
            let (target, token) = (ca.target(), token.clone());
            tokio::spawn(async move {
                issue(&target, &Host::new(), By::Token(&token), &Intent::new()).await
            })
        })
        .collect();
    let mut serials = Vec::new();
    for one in uses {
        match one.await.unwrap() {
            Ok(held) => serials.push(held.serial()),
            Err(status) => assert_eq!(reason(&status), "token_used", "{status}"),
        }
    }
    assert_eq!(serials.len(), 1);
}

#[tokio::test]
async fn lost_reply_to_a_token_is_answered_again_with_the_same_certificate() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let (host, intent) = (Host::new(), Intent::new());
    let first = issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    let again = issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    assert_eq!(first.response.chain, again.response.chain);
    let other_key = issue(&ca.target(), &host, By::Token(&token), &Intent::new()).await;
    assert_refused(other_key, Code::PermissionDenied, "token_used");
    let other_host = issue(&ca.target(), &Host::new(), By::Token(&token), &intent).await;
    assert_refused(other_host, Code::PermissionDenied, "token_used");
}

#[tokio::test]
async fn expired_and_invented_tokens_are_refused() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let mut invented = token.clone();
    invented.secret = myelin_identity::issuance::TokenSecret::random().unwrap();
    let refused = issue(&ca.target(), &Host::new(), By::Token(&invented), &Intent::new()).await;
    assert_refused(refused, Code::PermissionDenied, "token_unknown");
    ca.advance(Duration::from_secs(600));
    let refused = issue(&ca.target(), &Host::new(), By::Token(&token), &Intent::new()).await;
    assert_refused(refused, Code::PermissionDenied, "token_expired");
}

#[tokio::test]
async fn csr_with_a_bad_signature_or_an_rsa_key_or_too_long_is_refused_and_a_good_one_then_works() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let host = Host::new();
    let good = Intent::new();
    let mut bad_signature = Intent::new();
    *bad_signature.csr_der.last_mut().unwrap() ^= 1;
    let mut long = Intent::new();
    long.csr_der = vec![0x30; 5000];
    let mut rsa = Intent::new();
    rsa.csr_der = RSA_1024_CSR.to_vec();
    let mut p384 = Intent::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    p384.csr_der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let table = [
        (bad_signature, "csr_signature"),
        (long, "malformed"),
        (rsa, "csr_not_p256"),
        (p384, "csr_not_p256"),
    ];
    for (intent, word) in table {
        let refused = issue(&ca.target(), &host, By::Token(&token), &intent).await;
        assert_refused(refused, Code::InvalidArgument, word);
    }
    issue(&ca.target(), &host, By::Token(&token), &good).await.unwrap();
}

#[tokio::test]
async fn ten_megabyte_body_is_refused_by_its_length() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let (host, intent) = (Host::new(), Intent::new());
    let mut connected = ca.target().connect(None).await;
    let mut huge = request(&connected, &host, &By::Token(&token), &intent);
    huge.csr_der = vec![0; 10 * 1024 * 1024];
    let refused = connected.client.issue(huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
}

#[tokio::test]
async fn host_signature_of_another_connection_is_refused() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let (host, intent) = (Host::new(), Intent::new());
    let (mut here, elsewhere) = (ca.target().connect(None).await, ca.target().connect(None).await);
    let carried = request(&elsewhere, &host, &By::Token(&token), &intent);
    assert_refused(
        send(&mut here, carried, &intent).await,
        Code::PermissionDenied,
        "host_signature",
    );
    let own = request(&here, &host, &By::Token(&token), &intent);
    send(&mut here, own, &intent).await.unwrap();
}

#[tokio::test]
async fn first_contact_is_bound_to_the_hash_of_the_bundle() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let mut connected = ca.target().first_contact(token.bundle_hash).await.unwrap();
    let intent = Intent::new();
    let request = request(&connected, &Host::new(), &By::Token(&token), &intent);
    // Signed by another host key than the one named: the connection is good, the proof is not.
    assert_refused(
        send(&mut connected, proto_with_other_signature(request), &intent).await,
        Code::PermissionDenied,
        "host_signature",
    );
    let refused = ca.target().first_contact(BundleHash::from_bytes([7; 32])).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn own_svid_is_exactly_the_reserved_id() {
    let ca = TestCa::start().await;
    let connected = ca.target().connect(None).await;
    let seen = peer(&connected.chain[..2], &ca.bundle(), ca.clock().now(), Role::Server).unwrap();
    assert_eq!(seen.id.as_str(), "spiffe://prod.example/myelin/ca");
    assert_eq!(connected.chain.len(), 3, "leaf, intermediate, root");
    for reserved in ["spiffe://prod.example/myelin/ca", "spiffe://prod.example/myelin"] {
        let refused = ca.try_token(reserved, &["10.0.0.7"], &[]).await.unwrap_err();
        assert!(refused.contains("reserved"), "{refused}");
    }
    let foreign =
        ca.try_token("spiffe://other.example/ns/a/sa/b", &["10.0.0.7"], &[]).await.unwrap_err();
    assert!(
        foreign.contains("other trust domain") || foreign.contains("another trust domain"),
        "{foreign}"
    );
}

#[tokio::test]
async fn asked_for_lifetime_is_shortened_or_refused() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, "10.0.0.7").await;
    let mut intent = Intent::new();
    intent.lifetime_seconds = 299;
    let refused = issue(&ca.target(), &host, By::Renewal(&held), &intent).await;
    assert_refused(refused, Code::InvalidArgument, "lifetime_too_short");
    intent.lifetime_seconds = 600;
    let held = issue(&ca.target(), &host, By::Renewal(&held), &intent).await.unwrap();
    assert!(held.svid().not_after() <= ca.clock().seconds() + 600);
    let mut intent = Intent::new();
    intent.lifetime_seconds = 10 * 24 * 3600;
    let held = issue(&ca.target(), &host, By::Renewal(&held), &intent).await.unwrap();
    assert!(held.svid().not_after() <= ca.clock().seconds() + MAX_LIFETIME.as_secs());
}

fn proto_with_other_signature(
    mut request: myelin_identity::issuance::proto::IssueRequest,
) -> myelin_identity::issuance::proto::IssueRequest {
    request.host_signature = Host::new().sign(b"something else");
    request
}

/// `openssl req -new -newkey rsa:1024 -nodes -subj / -outform DER`: rcgen makes no RSA keys this
/// short.
const RSA_1024_CSR: &[u8] = include_bytes!("harness/rsa1024.csr.der");
