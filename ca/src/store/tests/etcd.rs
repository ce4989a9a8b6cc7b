//! The promises, kept by a real etcd: Debian's `etcd-server`, one member for each test.
//!
//! Never: skips when etcd is not there.

// SPDX-License-Identifier: Apache-2.0

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::{absent, committed, put};
use crate::store::etcd::{Etcd, EtcdConfig};
use crate::store::{Commit, Store, StoreError};

super::keeps_all!(scratch);

/// An etcd that ends with its test.
struct Member {
    _dir: tempfile::TempDir,
    process: Child,
    client: u16,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Member {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = (free_port(), free_port());
        let url = |port| format!("http://127.0.0.1:{port}");
        let process = Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(dir.path())
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("one={}", url(peer))])
            .args(["--heartbeat-interval", "50", "--election-timeout", "250"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: install Debian's etcd-server, or run tests/run, which does");
        Self { _dir: dir, process, client }
    }

    fn config(&self, prefix: &str) -> EtcdConfig {
        let endpoint = format!("http://127.0.0.1:{}", self.client).parse().unwrap();
        EtcdConfig { endpoints: vec![endpoint], tls: None, prefix: prefix.to_owned() }
    }

    async fn open(&self, prefix: &str) -> Etcd {
        for _ in 0..10 {
            if let Ok(store) = Etcd::open(&self.config(prefix)).await {
                return store;
            }
        }
        panic!("etcd does not answer");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn scratch() -> (Member, Arc<dyn Store>) {
    let member = Member::start();
    let store = member.open("/myelin/test").await;
    (member, Arc::new(store))
}

#[tokio::test]
async fn two_meshes_in_one_cluster_do_not_see_each_other() {
    let member = Member::start();
    let (one, two) = (member.open("/one").await, member.open("/two").await);
    committed(one.commit(vec![], vec![put("a", "1")]).await.unwrap());
    assert_eq!(two.read("a").await.unwrap(), None);
    assert!(two.list("", None, 10).await.unwrap().is_empty());
    committed(two.commit(vec![absent("a")], vec![put("a", "2")]).await.unwrap());
    assert_eq!(one.list("", None, 10).await.unwrap().len(), 1);
    assert!(one.acquire("root", "r1", Duration::from_secs(60)).await.unwrap().is_some());
    assert!(two.acquire("root", "r2", Duration::from_secs(60)).await.unwrap().is_some());
}

#[tokio::test]
async fn store_that_is_gone_is_said_in_time_and_goes_on_when_it_is_back() {
    let member = Member::start();
    let store = member.open("").await;
    committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(member.process.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let gone = store.commit(vec![absent("b")], vec![put("b", "1")]).await;
    assert!(matches!(gone, Err(StoreError::Unreachable { .. })), "{gone:?}");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    // The tries of before may happen now that it is back; whichever did, ours is told as ours.
    let again = store.commit(vec![absent("b")], vec![put("b", "1")]).await.unwrap();
    let stored = store.read("b").await.unwrap().unwrap();
    match again {
        Commit::Committed { revision } => assert_eq!(stored.revision, revision),
        Commit::Conflict => assert_eq!(stored.value, b"1"),
    }
}

#[tokio::test]
async fn wrong_endpoint_is_told_with_what_to_do() {
    let endpoint = format!("http://127.0.0.1:{}", free_port()).parse().unwrap();
    let config = EtcdConfig { endpoints: vec![endpoint], tls: None, prefix: String::new() };
    let error = Etcd::open(&config).await.err().unwrap();
    assert!(error.to_string().contains("check etcd's health"), "{error}");
    let endpoint = "https://127.0.0.1:1".parse().unwrap();
    let config = EtcdConfig { endpoints: vec![endpoint], tls: None, prefix: String::new() };
    let error = Etcd::open(&config).await.err().unwrap();
    assert!(error.to_string().contains("--etcd-ca"), "{error}");
}
