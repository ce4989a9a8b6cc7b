//! Companions over the real API: the workload's own certificate beside its sidecar's, what vouches
//! for it, and what a copy of that is worth (T56).
//!
//! Never: sleeps for luck.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::net::IpAddr;
use std::time::Duration;

use harness::*;
use myelin_identity::bundle::DenySubject;
use tonic::Code;

const REFUSED: Code = Code::PermissionDenied;
const ADDRESS: &str = "10.0.0.7";

fn live_serial(ca: &TestCa) -> String {
    let address: IpAddr = ADDRESS.parse().unwrap();
    let authority = ca.running.authority();
    authority.live().at(address, 80, authority.clock().seconds()).unwrap().serial.to_string()
}

#[tokio::test]
async fn a_companion_says_who_the_workload_is_and_claims_no_address() {
    let ca = TestCa::start().await;
    let (host, first) = join(&ca, WEB, ADDRESS).await;
    ca.advance(Duration::from_secs(3600));
    let before = live_serial(&ca);
    let companion =
        issue(&ca.target(), &host, By::Companion(&first), &Intent::new()).await.unwrap();
    let (own, workloads) = (first.svid(), companion.svid());
    assert_eq!(workloads.id(), own.id());
    assert_eq!(workloads.ip_sans(), own.ip_sans());
    assert_ne!(workloads.leaf().key, own.leaf().key);
    assert_ne!(companion.lineage().id, first.lineage().id);
    assert_eq!(workloads.not_after(), own.not_after(), "an hour less than the default life");
    assert_eq!(live_serial(&ca), before, "the sidecar lives at the address, nobody else");
    // What vouched is where it was: its next renewal is no second one.
    let second = issue(&ca.target(), &host, By::Renewal(&first), &Intent::new()).await.unwrap();
    assert_eq!(second.lineage().generation, 2);
    let next = issue(&ca.target(), &host, By::Companion(&second), &Intent::new()).await.unwrap();
    assert_eq!(next.lineage().id, companion.lineage().id);
    assert_eq!((companion.lineage().generation, next.lineage().generation), (1, 2));
    assert_eq!(ca.running.authority().deny_epoch(), 0);
}

#[tokio::test]
async fn a_lost_reply_is_given_again_and_a_second_request_is_an_alarm_that_denies_all() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, ADDRESS).await;
    let intent = Intent::new();
    let first = issue(&ca.target(), &host, By::Companion(&held), &intent).await.unwrap();
    let again = issue(&ca.target(), &host, By::Companion(&held), &intent).await.unwrap();
    assert_eq!(first.response, again.response);
    assert_eq!(ca.running.authority().deny_epoch(), 0);

    let second = issue(&ca.target(), &host, By::Companion(&held), &Intent::new()).await;
    assert_refused(second, REFUSED, "alarm");
    let denied: Vec<String> = ca
        .running
        .authority()
        .deny_list()
        .entries()
        .map(|entry| match entry.subject {
            DenySubject::Serial(serial) => serial.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(denied.contains(&held.serial()) && denied.contains(&first.serial()), "{denied:?}");
    let refused = issue(&ca.target(), &host, By::HostAlone, &Intent::new()).await;
    assert_refused(refused, REFUSED, "host_denied");
}

#[tokio::test]
async fn a_companion_can_neither_be_renewed_nor_vouch() {
    let ca = TestCa::start().await;
    let (host, held) = join(&ca, WEB, ADDRESS).await;
    let companion = issue(&ca.target(), &host, By::Companion(&held), &Intent::new()).await.unwrap();
    for by in [By::Renewal(&companion), By::Companion(&companion)] {
        let refused = issue(&ca.target(), &host, by, &Intent::new()).await;
        assert_refused(refused, REFUSED, "lineage_unknown");
    }
    // Nor does it speak for the sidecar's own lineage.
    let mut connected = ca.target().connect(Some(&companion)).await;
    for by in [By::Renewal(&held), By::Companion(&held)] {
        let intent = Intent::new();
        let mixed = request(&connected, &host, &by, &intent);
        let refused = send(&mut connected, mixed, &intent).await;
        assert_refused(refused, REFUSED, "svid_of_another_lineage");
    }
    assert_eq!(ca.running.authority().deny_epoch(), 0);
    issue(&ca.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
}

#[tokio::test]
async fn what_does_not_prove_the_present_svid_of_this_host_gets_no_companion() {
    let ca = TestCa::start().await;
    let (host, first) = join(&ca, WEB, ADDRESS).await;
    let intent = Intent::new();
    let mut bare = ca.target().connect(None).await;
    let unproven = request(&bare, &host, &By::Companion(&first), &intent);
    assert_refused(send(&mut bare, unproven, &intent).await, REFUSED, "svid_not_presented");
    let stranger = issue(&ca.target(), &Host::new(), By::Companion(&first), &intent).await;
    assert_refused(stranger, REFUSED, "host_unknown");
    let copy = first.copy();
    issue(&ca.target(), &host, By::Renewal(&first), &Intent::new()).await.unwrap();
    // A thief's copy of what was renewed since: nothing, and nothing that looks like a retry.
    let late = issue(&ca.target(), &host, By::Companion(&copy), &intent).await;
    assert_refused(late, REFUSED, "svid_of_another_lineage");
    let rebooted = issue(&ca.target(), &host, By::HostAlone, &Intent::new()).await.unwrap();
    issue(&ca.target(), &host, By::Companion(&rebooted), &Intent::new()).await.unwrap();
    assert_eq!(ca.running.authority().deny_epoch(), 0);
}
