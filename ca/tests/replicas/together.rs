//! Replicas that are well: one CA in several places.
//!
//! Never: a failure on purpose.

// SPDX-License-Identifier: Apache-2.0

use myelin_ca::app::Builder;
use tokio::time::timeout;
use tonic::Code;

use crate::etcd::Etcd;
use crate::harness::*;
use crate::{PATIENCE, PROMISED, Replica, SealKey, store, workload};

#[tokio::test]
async fn token_that_is_used_fifty_times_at_once_across_replicas_yields_one_certificate() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&etcd.endpoints(), &key).await);
    }
    let token = replicas[0].token(WEB, "10.0.0.7").await;
    let uses: Vec<_> = (0..50)
        .map(|at| {
            let (target, token) = (replicas[at % 3].target(), token.clone());
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
async fn replicas_share_one_root_and_each_signs_with_an_intermediate_of_its_own() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let first = Replica::start(&ports, &key).await;
    let second = Replica::start(&ports, &key).await;
    assert_eq!(first.target().bundle.hash(), second.target().bundle.hash());
    let (_, one) = first.join(&workload(1).0, &workload(1).1).await;
    let (_, two) = second.join(&workload(2).0, &workload(2).1).await;
    assert_ne!(one.response.chain[1], two.response.chain[1]);
    // A replica that comes back goes on with its own.
    let dir = second.stop().await;
    let second = Replica::start_in(dir, &ports, &key).await;
    let (_, three) = second.join(&workload(3).0, &workload(3).1).await;
    assert_eq!(two.response.chain[1], three.response.chain[1]);
}

#[tokio::test]
async fn replica_with_a_seal_key_of_its_own_does_not_start_and_says_why() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let _first = Replica::start(&ports, &key).await;
    let dir = tempfile::tempdir().unwrap();
    let lifetimes = myelin_ca::template::Lifetimes {
        default: myelin_ca::template::MAX_LIFETIME,
        shortest: myelin_ca::template::MIN_LIFETIME,
        longest: myelin_ca::template::MAX_LIFETIME,
    };
    let mut config = config(dir.path().join("data"), lifetimes);
    config.store = store(&ports);
    let missing = Builder::new(config.clone()).start().await.err().unwrap().to_string();
    assert!(missing.contains("copy it from another replica"), "{missing}");
    let other = dir.path().join("other.key");
    std::fs::write(&other, [7; 32]).unwrap();
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&other, owner_only).unwrap();
    config.keys.seal_key = myelin_ca::config::SealKeySource::File(other);
    let wrong = Builder::new(config.clone()).start().await.err().unwrap().to_string();
    assert!(wrong.contains("all replicas share one seal key"), "{wrong}");
    // The mistake sealed nothing of this replica's: with the right key it starts.
    config.keys.seal_key = myelin_ca::config::SealKeySource::File(key.path());
    Builder::new(config).start().await.unwrap().stop().await;
}

#[tokio::test]
async fn workload_renews_at_whichever_replica_and_a_lost_reply_is_repeated_by_another() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let first = Replica::start(&ports, &key).await;
    let second = Replica::start(&ports, &key).await;
    let (host, held) = first.join(WEB, "10.0.0.7").await;
    let intent = Intent::new();
    let renewed = issue(&second.target(), &host, By::Renewal(&held), &intent).await.unwrap();
    assert_eq!(renewed.lineage().generation, 2);
    let again = issue(&first.target(), &host, By::Renewal(&held), &intent).await.unwrap();
    assert_eq!(renewed.response.chain, again.response.chain);
    // A copy of the first SVID that turns up at the other replica is an alarm for both.
    let copied = issue(&first.target(), &host, By::Renewal(&held), &Intent::new()).await;
    assert_refused(copied, Code::PermissionDenied, "alarm");
    let owner = issue(&second.target(), &host, By::Renewal(&renewed), &Intent::new()).await;
    assert!(owner.is_err(), "denied everywhere");
}

#[tokio::test]
async fn what_one_replica_does_those_who_watch_another_hear_within_two_seconds() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let first = Replica::start(&ports, &key).await;
    let second = Replica::start(&ports, &key).await;
    let (_, watcher) = second.join(&workload(1).0, &workload(1).1).await;
    let mut directory = second.directory(&watcher, "10.0.0.7").await;
    assert_eq!(directory.next().await, None);
    let mut watch = second.watch(&watcher).await;
    let (before, _) = watch.next().await;

    let (host, held) = first.join(WEB, "10.0.0.7").await;
    let heard = timeout(PROMISED, directory.next()).await.expect("heard in time");
    assert_eq!(heard.as_deref(), Some(WEB));

    issue(&first.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    let alarm = issue(&first.target(), &host, By::Renewal(&held), &Intent::new()).await;
    assert_refused(alarm, Code::PermissionDenied, "alarm");
    let epoch = async {
        loop {
            let (epoch, _) = watch.next().await;
            if epoch > before {
                return epoch;
            }
        }
    };
    assert_eq!(timeout(PROMISED, epoch).await.expect("heard in time"), before + 1);
    let gone = async { while directory.next().await.is_some() {} };
    timeout(PROMISED, gone).await.expect("heard in time");
}

#[tokio::test]
async fn epochs_of_the_deny_list_only_grow_whichever_replica_makes_them() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let replicas = [Replica::start(&ports, &key).await, Replica::start(&ports, &key).await];
    let (_, watcher) = replicas[0].join(WEB, "10.0.0.7").await;
    let mut watches = [replicas[0].watch(&watcher).await, replicas[1].watch(&watcher).await];
    let alarms: Vec<_> = (1..=6)
        .map(|n| {
            let (target, other) = (replicas[n % 2].target(), replicas[(n + 1) % 2].target());
            let (id, address) = workload(u8::try_from(n).unwrap());
            let replica = &replicas[n % 2];
            async move {
                let (host, held) = replica.join(&id, &address).await;
                issue(&target, &host, By::Renewal(&held), &Intent::new()).await.unwrap();
                let alarm = issue(&other, &host, By::Renewal(&held), &Intent::new()).await;
                assert_refused(alarm, Code::PermissionDenied, "alarm");
            }
        })
        .collect();
    futures_util::future::join_all(alarms).await;
    for watch in &mut watches {
        let mut last = 0;
        let all = async {
            while last < 6 {
                let (epoch, _) = watch.next().await;
                assert!(epoch >= last, "{epoch} after {last}");
                last = epoch;
            }
        };
        timeout(PATIENCE, all).await.expect("every alarm is heard");
        assert_eq!(last, 6);
    }
}
