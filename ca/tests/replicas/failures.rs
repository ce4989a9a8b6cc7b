//! Replicas while something fails: one of them, the way to etcd, etcd's leader, all of etcd.
//!
//! Never: a failure without its recovery.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::etcd::{Etcd, Link};
use crate::harness::*;
use crate::{PATIENCE, Replica, SealKey, workload};

/// An outage of the store: beyond every deadline, lease and heartbeat of a replica.
const OUTAGE: Duration = Duration::from_secs(60);

/// Renews until it is granted, with one request, as a sidecar does.
async fn renewed_at_last(target: &Target, host: &Host, held: &Held, intent: &Intent) -> Held {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match issue(target, host, By::Renewal(held), intent).await {
            Ok(renewed) => return renewed,
            Err(status) => {
                assert_eq!(reason(&status), "store_failed", "{status}");
                assert!(Instant::now() < deadline, "never again: {status}");
            }
        }
    }
}

fn store_failed<T>(result: &Result<T, Status>) -> bool {
    result
        .as_ref()
        .is_err_and(|status| status.code() == Code::Unavailable && reason(status) == "store_failed")
}

#[tokio::test]
async fn replica_that_ends_is_replaced_by_the_others_for_renewals_and_joins() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let first = Replica::start(&ports, &key).await;
    let second = Replica::start(&ports, &key).await;
    let third = Replica::start(&ports, &key).await;
    let (host, held) = first.join(WEB, "10.0.0.7").await;
    let token = first.token(&workload(1).0, &workload(1).1).await;
    drop(first);
    let renewed = issue(&second.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    issue(&third.target(), &host, By::Renewal(&renewed), &Intent::new()).await.unwrap();
    let joined = issue(&third.target(), &Host::new(), By::Token(&token), &Intent::new()).await;
    joined.unwrap();
}

#[tokio::test]
async fn etcd_leader_that_dies_costs_an_election_and_no_certificate() {
    let (mut etcd, key) = (Etcd::start(3).await, SealKey::new());
    let ports = etcd.endpoints();
    let first = Replica::start(&ports, &key).await;
    let second = Replica::start(&ports, &key).await;
    let (host, held) = first.join(WEB, "10.0.0.7").await;
    let mut watch = second.watch(&held).await;
    watch.next().await;
    let leader = etcd.leader_among(&[0, 1, 2]).await;
    etcd.kill(leader);
    let renewed = renewed_at_last(&first.target(), &host, &held, &Intent::new()).await;
    assert_eq!(renewed.lineage().generation, 2, "granted once, whatever was lost on the way");
    let again = renewed_at_last(&second.target(), &host, &renewed, &Intent::new()).await;
    assert_eq!(again.lineage().generation, 3);
    // Following goes on as well, with a watch that may have hung on the dead member.
    let (_, joined) = first.join(&workload(1).0, &workload(1).1).await;
    let mut directory = second.directory(&joined, &workload(1).1).await;
    let known = async { while directory.next().await.is_none() {} };
    timeout(PATIENCE, known).await.expect("the directory follows again");
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    etcd.leader_among(&others).await;
}

#[tokio::test]
async fn store_that_is_gone_refuses_issues_dates_heartbeats_honestly_and_goes_on_by_itself() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let replica = Replica::start(&etcd.endpoints(), &key).await;
    let (host, held) = replica.join(WEB, "10.0.0.7").await;
    let mut watch = replica.watch(&held).await;
    let (_, fresh) = watch.next().await;
    etcd.stop();
    let gone = Instant::now();
    let intent = Intent::new();
    let refused = issue(&replica.target(), &host, By::Renewal(&held), &intent).await;
    assert!(store_failed(&refused), "{:?}", refused.err());
    // Heartbeats come, and none of them is younger than the store's last word.
    let (mut beats, mut said) = (0, fresh);
    while gone.elapsed() < OUTAGE || beats < 2 {
        (_, said) = watch.next().await;
        beats += 1;
    }
    let stopped_for = gone.elapsed().as_secs();
    let now = replica.target().clock.seconds();
    assert!(said + stopped_for <= now + 3, "said {said}, now {now}, stopped for {stopped_for}");
    etcd.go_on();
    let renewed = renewed_at_last(&replica.target(), &host, &held, &intent).await;
    assert_eq!(renewed.lineage().generation, 2);
    let recovered = async { while watch.next().await.1 <= said {} };
    timeout(PATIENCE, recovered).await.expect("heartbeats are fresh again");
}

#[tokio::test]
async fn replica_that_is_cut_off_refuses_while_the_others_go_on_and_catches_up_later() {
    let (etcd, key) = (Etcd::start(3).await, SealKey::new());
    let ports = etcd.endpoints();
    let first = Replica::start(&ports, &key).await;
    let mut links = Vec::new();
    for port in &ports {
        links.push(Link::to(*port).await);
    }
    let through: Vec<u16> = links.iter().map(|link| link.port).collect();
    let second = Replica::start(&through, &key).await;
    let (host, held) = first.join(WEB, "10.0.0.7").await;
    let (_, watcher) = second.join(&workload(1).0, &workload(1).1).await;
    let mut directory = second.directory(&watcher, &workload(2).1).await;
    assert_eq!(directory.next().await, None);
    let mut watch = second.watch(&watcher).await;
    let (before, _) = watch.next().await;

    links.iter().for_each(Link::cut);
    let intent = Intent::new();
    let refused = issue(&second.target(), &host, By::Renewal(&held), &intent).await;
    assert!(store_failed(&refused), "{:?}", refused.err());
    // The very same request is granted next door, and the alarm of a copy as well.
    issue(&first.target(), &host, By::Renewal(&held), &intent).await.unwrap();
    let alarm = issue(&first.target(), &host, By::Renewal(&held), &Intent::new()).await;
    assert_refused(alarm, Code::PermissionDenied, "alarm");
    first.join(&workload(2).0, &workload(2).1).await;
    sleep(OUTAGE).await;
    let (still, said) = watch.next().await;
    assert_eq!(still, before, "it cannot know");
    assert!(said + 5 <= second.target().clock.seconds(), "and it says so");

    links.iter().for_each(Link::mend);
    let caught_up = async {
        while watch.next().await.0 == before {}
        while directory.next().await.is_none() {}
    };
    timeout(PATIENCE, caught_up).await.expect("it catches up");
}
