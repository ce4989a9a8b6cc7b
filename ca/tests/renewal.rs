//! Lineages over the real API: renewals, lost replies, copies (T56), addresses, restarts (T45).
//!
//! Never: sleeps for luck.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use harness::*;
use myelin_ca::journal::Cause;
use myelin_ca::operator::{Answer, Ask};
use myelin_identity::verify::CaVerifier;
use tonic::Code;

const REFUSED: Code = Code::PermissionDenied;

#[tokio::test]
async fn renewal_proves_host_key_and_current_svid_and_advances_the_generation() {
    let ca = TestCa::start().await;
    let (host, first) = join(&ca, WEB, "10.0.0.7").await;
    let second = issue(&ca.target(), &host, By::Renewal(&first), &Intent::new()).await.unwrap();
    assert_eq!(second.lineage().id, first.lineage().id);
    assert_eq!((first.lineage().generation, second.lineage().generation), (1, 2));
    let third = issue(&ca.target(), &host, By::Renewal(&second), &Intent::new()).await.unwrap();
    assert_eq!(third.lineage().generation, 3);
    assert_ne!(second.serial(), third.serial());
}

#[tokio::test]
async fn renewal_without_the_svid_or_with_another_host_key_is_refused() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, "10.0.0.7").await;
    let intent = Intent::new();
    let mut bare = ca.target().connect(None).await;
    let unproven = request(&bare, &host, &By::Renewal(&held), &intent);
    assert_refused(send(&mut bare, unproven, &intent).await, REFUSED, "svid_not_presented");
    let stranger = issue(&ca.target(), &Host::new(), By::Renewal(&held), &intent).await;
    assert_refused(stranger, REFUSED, "host_unknown");
    let (_, other) = join(&ca, "spiffe://prod.example/ns/shop/sa/db", "10.0.0.8").await;
    // The right host key and lineage, but somebody else's SVID on the connection.
    let mut connected = ca.target().connect(Some(&other)).await;
    let mixed = request(&connected, &host, &By::Renewal(&held), &intent);
    assert_refused(send(&mut connected, mixed, &intent).await, REFUSED, "svid_of_another_lineage");
    issue(&ca.target(), &host, By::Renewal(&held), &intent).await.unwrap();
}

#[tokio::test]
async fn copied_svid_that_is_renewed_elsewhere_is_an_alarm_and_both_lineages_are_denied() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, "10.0.0.7").await;
    let copy = held.copy();
    let thief = issue(&ca.target(), &host, By::Renewal(&copy), &Intent::new()).await.unwrap();
    let epoch = ca.running.authority().deny_epoch();

    let owner = issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await;
    assert_refused(owner, REFUSED, "alarm");
    assert_eq!(ca.running.authority().deny_epoch(), epoch + 1);
    let denied = ca.running.authority().deny_list();
    let serials: Vec<String> = denied
        .entries()
        .map(|entry| match entry.subject {
            myelin_identity::bundle::DenySubject::Serial(serial) => serial.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(serials.contains(&held.serial()) && serials.contains(&thief.serial()), "{serials:?}");
    for by in [By::Renewal(&thief), By::Renewal(&held)] {
        let refused = issue(&ca.target(), &host, by, &Intent::new()).await;
        assert_refused(refused, REFUSED, "denied");
    }
    assert_refused(
        issue(&ca.target(), &host, By::HostAlone, &Intent::new()).await,
        REFUSED,
        "host_denied",
    );
    // A new host key with a new token heals it: the denied host's address is free again.
    join(&ca, WEB, "10.0.0.7").await;
}

#[tokio::test]
async fn lost_reply_retried_with_its_request_key_is_no_alarm() {
    let ca = TestCa::start().await;
    let (host, first) = join(&ca, WEB, "10.0.0.7").await;
    let intent = Intent::new();
    let second = issue(&ca.target(), &host, By::Renewal(&first), &intent).await.unwrap();
    let again = issue(&ca.target(), &host, By::Renewal(&first), &intent).await.unwrap();
    assert_eq!(second.response, again.response);
    assert_eq!(ca.running.authority().deny_epoch(), 0);
    // The same request key with another public key is neither a retry nor a theft.
    let mut confused = Intent::new();
    confused.request_key = intent.request_key;
    let refused = issue(&ca.target(), &host, By::Renewal(&first), &confused).await;
    assert_refused(refused, REFUSED, "request_key_reused");
    issue(&ca.target(), &host, By::Renewal(&again), &Intent::new()).await.unwrap();
}

#[tokio::test]
async fn superseded_lineage_that_is_renewed_is_an_alarm() {
    let ca = TestCa::start().await;
    let (host, first) = join(&ca, WEB, "10.0.0.7").await;
    let rebooted = issue(&ca.target(), &host, By::HostAlone, &Intent::new()).await.unwrap();
    assert_ne!(rebooted.lineage().id, first.lineage().id);
    issue(&ca.target(), &host, By::Renewal(&rebooted), &Intent::new()).await.unwrap();
    let copy = issue(&ca.target(), &host, By::Renewal(&first), &Intent::new()).await;
    assert_refused(copy, REFUSED, "alarm");
}

#[tokio::test]
async fn host_attests_alone_after_its_svid_expired() {
    let ca = TestCa::start().await;
    let (host, first) = join(&ca, WEB, "10.0.0.7").await;
    ca.advance(Duration::from_secs(24 * 3600 + 1));
    // The CA renews its own SVID within a tick; until then nobody can connect.
    let target = ca.target();
    let verifier = || std::sync::Arc::new(CaVerifier::new(target.bundle.clone()));
    let mut tries = 0;
    while target.try_connect(verifier(), None).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the CA did not renew its own SVID");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let expired = target.try_connect(verifier(), Some(&first)).await;
    if let Ok(mut connected) = expired {
        // In TLS 1.3 the client learns of the refusal with its first read.
        let intent = Intent::new();
        let request = request(&connected, &host, &By::Renewal(&first), &intent);
        assert!(send(&mut connected, request, &intent).await.is_err());
    }
    let intent = Intent::new();
    let healed = issue(&target, &host, By::HostAlone, &intent).await.unwrap();
    let again = issue(&target, &host, By::HostAlone, &intent).await.unwrap();
    assert_eq!(healed.response, again.response, "a lost reply is answered again");
    assert_refused(
        issue(&target, &Host::new(), By::HostAlone, &Intent::new()).await,
        REFUSED,
        "host_unknown",
    );
}

#[tokio::test]
async fn address_is_refused_to_a_second_workload_until_the_first_is_gone() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, "10.0.0.7").await;
    let token = ca.try_token(WEB, &["10.0.0.7"], &[443]).await.unwrap();
    let other = Host::new();
    let refused = issue(&ca.target(), &other, By::Token(&token), &Intent::new()).await;
    assert_refused(refused, Code::Unavailable, "address_taken");
    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    let elsewhere = ca.token(WEB, "10.0.0.8").await;
    issue(&ca.target(), &Host::new(), By::Token(&elsewhere), &Intent::new()).await.unwrap();
    // The same host may take its address again, in whatever way it attests.
    let same = ca.token(WEB, "10.0.0.7").await;
    issue(&ca.target(), &host, By::Token(&same), &Intent::new()).await.unwrap();
}

#[tokio::test]
async fn single_ports_of_one_address_go_to_different_workloads() {
    let ca = TestCa::start().await;
    for (port, granted) in [(80, true), (443, true), (80, false)] {
        let token = ca.try_token(WEB, &["10.0.0.7"], &[port]).await.unwrap();
        let result = issue(&ca.target(), &Host::new(), By::Token(&token), &Intent::new()).await;
        assert_eq!(result.is_ok(), granted, "{port}");
    }
}

#[tokio::test]
async fn restart_keeps_identity_lineages_and_live_svids() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, "10.0.0.7").await;
    let hash = ca.bundle().hash();
    let ca = ca.restart().await;
    assert_eq!(ca.bundle().hash(), hash);
    let Answer::Svids(live) = ca.running.ask(Ask::ListSvids).await.unwrap() else { panic!() };
    assert_eq!(live.iter().map(|line| line.serial.clone()).collect::<Vec<_>>(), [held.serial()]);
    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
}

#[tokio::test]
async fn host_that_asks_too_often_is_slowed_down() {
    let ca = TestCa::start().await;
    let (host, _) = join(&ca, WEB, "10.0.0.7").await;
    let mut last = None;
    for _ in 0..70 {
        match issue(&ca.target(), &host, By::HostAlone, &Intent::new()).await {
            Ok(_) => {}
            refused => {
                last = Some(refused);
                break;
            }
        }
    }
    assert_refused(last.expect("refused within the burst"), Code::Unavailable, "too_often");
    ca.advance(Duration::from_secs(3600));
    issue(&ca.target(), &host, By::HostAlone, &Intent::new()).await.unwrap();
}

/// Whoever raises an alarm and hangs up does not keep it from being counted: each of these waits a
/// little longer for the answer than the one before.
#[tokio::test]
async fn alarm_is_counted_though_its_caller_hung_up_in_the_middle() {
    let ca = TestCa::start().await;
    let counted = async || {
        let url = format!("{}", ca.running.ops);
        let metrics = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(url).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut metrics = String::new();
            stream.read_to_string(&mut metrics).unwrap();
            metrics
        });
        let metrics = metrics.await.unwrap();
        let line =
            metrics.lines().find(|line| line.starts_with("myelin_ca_alarms_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    for n in 0..32_u64 {
        let (host, held) = join(&ca, WEB, &format!("10.0.0.{}", n + 1)).await;
        let renewal = By::Renewal(&held);
        issue(&ca.target(), &host, renewal, &Intent::new()).await.unwrap();
        let mut connected = ca.target().connect(Some(&held)).await;
        let intent = Intent::new();
        let again = request(&connected, &host, &By::Renewal(&held), &intent);
        let asked = send(&mut connected, again, &intent);
        let _ = tokio::time::timeout(Duration::from_micros(250 * n), asked).await;
    }
    let denied = async || match ca.running.ask(Ask::ListDenials).await.unwrap() {
        Answer::Denials(lines) => lines.iter().filter(|line| line.cause == Cause::Alarm).count(),
        other => panic!("{other:?}"),
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while denied().await == 0 || denied().await != counted().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} and {}",
            denied().await,
            counted().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
