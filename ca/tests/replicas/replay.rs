//! `myelin-ca log verify` beside replicas that run, against the journal in etcd.
//!
//! Never: a replica that stops for it.

// SPDX-License-Identifier: Apache-2.0

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use myelin_ca::store::etcd::{Etcd as Store, EtcdConfig};
use myelin_ca::store::{Commit, Store as _, Write};

use crate::etcd::Etcd;
use crate::harness::*;
use crate::{Replica, SealKey, workload};

const BINARY: &str = env!("CARGO_BIN_EXE_myelin-ca");

async fn verify(data: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["log", "verify", "--json", "--data"]).arg(data).args(more);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What it finds with the store's flags, and its exit code.
async fn found(replica: &Replica, ports: &[u16]) -> (serde_json::Value, Option<i32>) {
    let endpoint = format!("http://127.0.0.1:{}", ports[0]);
    let flags = ["--store", "etcd", "--trust-domain", TRUST_DOMAIN, "--etcd-endpoint", &endpoint];
    read(&verify(&replica.data(), &flags).await)
}

fn read(output: &Output) -> (serde_json::Value, Option<i32>) {
    let said = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout);
    (found.unwrap_or_else(|_| panic!("{said}")), output.status.code())
}

fn damages(found: &serde_json::Value) -> Vec<String> {
    let damages = found["damages"].as_array().unwrap();
    damages.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn running_replicas_logs_are_replayed_against_etcd_while_they_issue() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let replicas = [Replica::start(&ports, &key).await, Replica::start(&ports, &key).await];
    for (n, replica) in (1..).zip(&replicas) {
        replica.join(&workload(n).0, &workload(n).1).await;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let mut busy = Vec::new();
    for (n, replica) in (1..).zip(&replicas) {
        let (target, ended) = (replica.target(), ended.clone());
        let (host, mut held) = replica.join(&workload(n + 2).0, &workload(n + 2).1).await;
        busy.push(tokio::spawn(async move {
            let mut renewals = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                let by = By::Renewal(&held);
                held = issue(&target, &host, by, &Intent::new()).await.unwrap();
                renewals += 1;
            }
            renewals
        }));
    }
    let mut before = [0, 0];
    for _ in 0..5 {
        for (replica, before) in replicas.iter().zip(&mut before) {
            for (found, code) in
                [found(replica, &ports).await, read(&verify(&replica.data(), &[]).await)]
            {
                assert_eq!((damages(&found), code), (vec![], Some(0)), "{found}");
                let entries = found["entries"].as_u64().unwrap();
                assert!(entries >= *before, "{found}");
                *before = entries;
                assert_eq!(found["unclaimed"], 0, "{found}");
                assert_eq!(found["intermediates"], 2, "{found}");
                // Each is where it should be, but for what is on its way.
                let certificates = found["certificates"].as_u64().unwrap();
                assert_eq!(certificates + found["under_way"].as_u64().unwrap(), entries, "{found}");
            }
        }
    }
    ended.store(true, Ordering::Relaxed);
    for (busy, last) in busy.into_iter().zip(before) {
        // It grew from answer to answer: the joins, the CA's own, and the renewals.
        assert!(busy.await.unwrap() > 0 && last > 3);
    }
    let ((one, _), (two, _)) =
        (found(&replicas[0], &ports).await, found(&replicas[1], &ports).await);
    assert_ne!(one["origin"], two["origin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_in_etcd_or_in_a_file_is_named_and_of_one_replica_only() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let replicas = [Replica::start(&ports, &key).await, Replica::start(&ports, &key).await];
    let mut serials = Vec::new();
    for n in 1..5 {
        let (_, held) = replicas[0].join(&workload(n).0, &workload(n).1).await;
        serials.push(held.serial());
    }
    replicas[1].join(&workload(9).0, &workload(9).1).await;
    let endpoints = vec![format!("http://127.0.0.1:{}", ports[0]).parse().unwrap()];
    let prefix = format!("/myelin/{TRUST_DOMAIN}");
    let store = Store::open(&EtcdConfig { endpoints, tls: None, prefix }).await.unwrap();
    let write = async |change: Write| {
        assert!(matches!(
            store.commit(vec![], vec![change]).await.unwrap(),
            Commit::Committed { .. }
        ));
    };
    // Another certificate, another place, none at all.
    let issued = |serial: &str| format!("issued/{serial}");
    let alter = async |serial: &str, change: fn(&mut serde_json::Value)| {
        let key = issued(serial);
        let mut record =
            serde_json::from_slice(&store.read(&key).await.unwrap().unwrap().value).unwrap();
        change(&mut record);
        write(Write::Put(key, serde_json::to_vec(&record).unwrap())).await;
    };
    alter(&serials[0], |it| it["record"]["leaf_sha256"] = "00".repeat(32).into()).await;
    alter(&serials[1], |it| it["record"]["logged"]["index"] = 999.into()).await;
    write(Write::Delete(issued(&serials[2]))).await;
    let (found_one, code) = found(&replicas[0], &ports).await;
    assert_eq!(code, Some(1));
    for (serial, why) in [
        (&serials[0], "is another certificate"),
        (&serials[1], "it should be entry 999, but the log has 5"),
        (&serials[2], "it is in force at 10.0.1.3, and its record is not there"),
    ] {
        let name = format!("journal, certificate {serial}: ");
        let named = |line: &String| line.starts_with(&name) && line.contains(why);
        assert!(damages(&found_one).iter().any(named), "{name}{why}: {found_one}");
    }
    // The second is missed where it was, too.
    assert_eq!(damages(&found_one).len(), 4, "{found_one}");
    // What was taken from the journal is in nobody's log but the first's.
    let (found_two, _) = found(&replicas[1], &ports).await;
    assert_eq!(damages(&found_two).len(), 1, "{found_two}");
    assert!(damages(&found_two)[0].contains(&serials[2]), "{found_two}");

    let tile = replicas[1].data().join("log/tile/0/000.p/2");
    let mut hashes = std::fs::read(&tile).unwrap();
    hashes[40] ^= 1;
    std::fs::write(&tile, hashes).unwrap();
    let (found_two, code) = found(&replicas[1], &ports).await;
    assert_eq!(code, Some(1));
    let named = "tile/entries/000.p/2: entry 1 is not the one of tile/0/000.p/2";
    assert!(damages(&found_two).contains(&named.to_owned()), "{found_two}");
    assert!(!damages(&found(&replicas[0], &ports).await.0).contains(&named.to_owned()));
}

#[tokio::test]
async fn replica_that_is_stopped_is_replayed_with_the_stores_flags_and_asks_for_them_without() {
    let (etcd, key) = (Etcd::start(1).await, SealKey::new());
    let ports = etcd.endpoints();
    let replica = Replica::start(&ports, &key).await;
    replica.join(WEB, "10.0.0.7").await;
    let dir = replica.stop().await;
    let data = dir.path().join("data");
    let endpoint = format!("http://127.0.0.1:{}", ports[0]);
    let prefix = format!("/myelin/{TRUST_DOMAIN}");
    let flags = ["--store", "etcd", "--etcd-endpoint", &endpoint];
    let (found, code) =
        read(&verify(&data, &[&flags[..], &["--etcd-prefix", &prefix]].concat()).await);
    assert_eq!((damages(&found), code, found["certificates"].as_u64()), (vec![], Some(0), Some(2)));
    let elsewhere = [&flags[..], &["--etcd-prefix", "/another"]].concat();
    let nowhere = tempfile::tempdir().unwrap();
    std::fs::set_permissions(nowhere.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    for (data, flags, said) in [
        (data.as_path(), &[][..], "--store etcd --etcd-endpoint"),
        (&data, &flags, "--trust-domain"),
        (&data, &elsewhere, "the store has no log"),
        (nowhere.path(), &flags, "--trust-domain"),
        (nowhere.path(), &elsewhere, "no replica.id"),
    ] {
        let refused = verify(data, flags).await;
        let line = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), line.lines().count()), (Some(78), 1), "{line}");
        assert!(line.contains(said), "{flags:?}: {line}");
    }
}
