//! Handshakes between two real ends: who is let in, who is refused and with which word.
//!
//! Never: a handshake that is not driven through this room's own functions.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::addr::{Clock, Endpoint};
use crate::testing::{Authority, Credential, NOW, connection, still_clock};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const SOON: Deadline = Deadline(Duration::from_secs(5));

type Ends = (Result<Session, HandshakeError>, Result<Session, HandshakeError>);

async fn shake(
    dialer: &Configs,
    offer: Offer<'_>,
    acceptor: &Configs,
    takes: Declared<'_>,
) -> Ends {
    let (here, there) = connection().await;
    let endpoint = Endpoint(here.peer_addr().unwrap());
    tokio::join!(dial(here, endpoint, offer, dialer, SOON), accept(there, acceptor, takes, SOON))
}

fn workload(authority: &Authority, name: &str) -> Credential {
    authority.issue(&format!("spiffe://test.example/ns/demo/sa/{name}"), &[LOCAL])
}

fn word(result: &Result<Session, HandshakeError>) -> &'static str {
    result.as_ref().map_or_else(HandshakeError::word, |_| "ok")
}

#[tokio::test]
async fn two_workloads_of_one_authority_meet_post_quantum() {
    let authority = Authority::new("one");
    let (web, db) = (workload(&authority, "web"), workload(&authority, "db"));
    let clock = still_clock();
    let (web, db) = (authority.configs(&web, &clock), authority.configs(&db, &clock));
    let (dialled, accepted) = shake(&web, Offer::Myelin1, &db, None).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(dialled.peer.id.as_str(), "spiffe://test.example/ns/demo/sa/db");
    assert_eq!(accepted.peer.id.as_str(), "spiffe://test.example/ns/demo/sa/web");
    assert!(dialled.speaks_myelin() && accepted.speaks_myelin());
    assert_eq!(dialled.facts.group, "X25519MLKEM768");
    assert_eq!(dialled.facts.cipher, "TLS_AES_128_GCM_SHA256");
    assert!(!dialled.facts.resumed);
}

#[tokio::test]
async fn a_foreign_root_is_refused_by_either_side() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let clock = still_clock();
    let web = ours.configs(&workload(&ours, "web"), &clock);
    let stranger = theirs.configs(&workload(&theirs, "web"), &clock);
    let (dialled, accepted) = shake(&web, Offer::Myelin1, &stranger, None).await;
    assert_eq!(word(&dialled), "untrusted_root");
    assert_ne!(word(&accepted), "ok");
    let (_, accepted) = shake(&stranger, Offer::Myelin1, &web, None).await;
    // The stranger refuses first: it is the dialer that sees a certificate first.
    assert_eq!(word(&accepted), "refused_by_alert");
}

#[tokio::test]
async fn a_dialer_with_a_foreign_certificate_is_refused_by_the_acceptor() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let clock = still_clock();
    let web = ours.configs(&workload(&ours, "web"), &clock);
    let liar = workload(&theirs, "web");
    // It trusts us, so it goes on to present its own certificate.
    let liar = Configs::build(&liar.chain, &liar.key, &ours.bundle(), &[], &clock).unwrap();
    let (_, accepted) = shake(&liar, Offer::Myelin1, &web, None).await;
    assert_eq!(word(&accepted), "untrusted_root");
}

#[tokio::test]
async fn an_expired_peer_is_refused_though_it_was_remembered() {
    let authority = Authority::new("one");
    let now = Arc::new(AtomicU64::new(NOW));
    let reading = Arc::clone(&now);
    let clock = Clock::new(move || reading.load(Ordering::Relaxed));
    let short = authority.issue_until("spiffe://test.example/ns/demo/sa/web", &[LOCAL], NOW + 10);
    let (web, db) = (authority.configs(&short, &still_clock()), workload(&authority, "db"));
    let db = authority.configs(&db, &clock);
    let (_, accepted) = shake(&web, Offer::Myelin1, &db, None).await;
    assert_eq!(word(&accepted), "ok");
    now.store(NOW + 11, Ordering::Relaxed);
    let (_, accepted) = shake(&web, Offer::Myelin1, &db, None).await;
    assert_eq!(word(&accepted), "expired");
}

#[tokio::test]
async fn a_peer_without_myelin_is_served_only_where_it_is_declared() {
    let authority = Authority::new("one");
    let clock = still_clock();
    let web = authority.configs(&workload(&authority, "web"), &clock);
    let db = authority.configs(&workload(&authority, "db"), &clock);
    let h2: &[u8] = b"h2";
    for (offer, takes, verdict) in [
        (Offer::Plain { alpn: None }, None, "undeclared_protocol"),
        (Offer::Plain { alpn: None }, Some(None), "ok"),
        (Offer::Plain { alpn: Some(h2) }, None, "undeclared_protocol"),
        (Offer::Plain { alpn: Some(h2) }, Some(Some(h2)), "ok"),
        (Offer::Myelin1, Some(Some(h2)), "ok"),
    ] {
        let (_, accepted) = shake(&web, offer, &db, takes).await;
        assert_eq!(word(&accepted), verdict, "{offer:?} {takes:?}");
    }
}

#[tokio::test]
async fn a_dialer_of_myelin_takes_nothing_less() {
    let authority = Authority::new("one");
    let clock = still_clock();
    let web = authority.configs(&workload(&authority, "web"), &clock);
    let (here, there) = connection().await;
    let endpoint = Endpoint(here.peer_addr().unwrap());
    let db = workload(&authority, "db");
    let old = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(db.chain, db.key)
        .unwrap();
    let server = tokio_rustls::TlsAcceptor::from(Arc::new(old));
    let (dialled, _) =
        tokio::join!(dial(here, endpoint, Offer::Myelin1, &web, SOON), server.accept(there));
    assert_eq!(word(&dialled), "undeclared_protocol");
}

#[tokio::test]
async fn plaintext_gets_a_reset_and_not_one_byte() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = Authority::new("one");
    let db = authority.configs(&workload(&authority, "db"), &still_clock());
    let (mut here, there) = connection().await;
    let client = async {
        here.write_all(b"GET / HTTP/1.1\r\nhost: db\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let ended = here.read_to_end(&mut answer).await;
        (answer, ended.map_err(|error| error.kind()))
    };
    let (accepted, (answer, ended)) = tokio::join!(accept(there, &db, None, SOON), client);
    assert_eq!(word(&accepted), "plaintext_refused");
    assert!(answer.is_empty());
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_at_its_deadline() {
    let authority = Authority::new("one");
    let db = authority.configs(&workload(&authority, "db"), &still_clock());
    let (_silent, there) = connection().await;
    let accepted = accept(there, &db, None, Deadline(Duration::from_millis(50))).await;
    assert_eq!(word(&accepted), "handshake_timeout");
}
