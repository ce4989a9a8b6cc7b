//! The CA and a fake of the Kubernetes API: two processes of the real binary that share their state
//! through it (T37), and pods that it is asked about (T38).
//!
//! Never: a real cluster.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use harness::*;
use myelin_ca::config::{AttestConfig, ReviewConfig};
use myelin_fake_api::{FakeApi, Fault, PodToken, Resource, Trouble};
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{BundleUpdate, JoinToken};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

const BINARY: &str = env!("CARGO_BIN_EXE_myelin-ca");
/// What the documentation promises from a change at one replica to those who watch another.
const PROMISED: Duration = Duration::from_secs(2);

/// What the replicas share.
struct Cluster {
    api: FakeApi,
    dir: tempfile::TempDir,
}

/// One replica in a process of its own.
struct Replica {
    child: Child,
    grpc: SocketAddr,
    data: PathBuf,
}

impl Cluster {
    async fn start() -> Self {
        let (api, dir) = (FakeApi::start().await.unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("kubeconfig"), api.kubeconfig()).unwrap();
        Self { api, dir }
    }

    fn serve(&self, name: &str) -> Command {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--trust-domain", TRUST_DOMAIN, "--data", &file(name)])
            .args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            .args(["--log-format", "json", "--seal-key-file", &file("seal.key")])
            .args(["--store", "kubernetes", "--kubernetes-namespace", "myelin-system"])
            .args(["--kubeconfig", &file("kubeconfig")])
            .stderr(Stdio::piped());
        command
    }

    fn replica(&self, name: &str) -> Replica {
        let mut child = self.serve(name).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let grpc = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("ended before it served: {seen}")).unwrap();
            seen.push_str(&line);
            let json: serde_json::Value = serde_json::from_str(&line).unwrap();
            if json["message"] == "serving" {
                break json["grpc"].as_str().unwrap().parse().unwrap();
            }
        };
        // Somebody must go on reading, or the child blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Replica { child, grpc, data: self.dir.path().join(name) }
    }
}

impl Replica {
    fn target(&self) -> Target {
        let pem = cli(&self.data, &["bundle", "show"]);
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        let bundle = Arc::new(TrustBundle::from_pem(domain, 1, &pem).unwrap());
        Target { grpc: self.grpc, bundle, clock: clock(&Arc::new(AtomicU64::new(0))) }
    }

    fn token(&self, id: &str, address: &str) -> JoinToken {
        let asked = ["token", "create", "--id", id, "--address", address, "--ttl", "10m"];
        cli(&self.data, &asked).trim().parse().unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn cli(data: &Path, args: &[&str]) -> String {
    let output = Command::new(BINARY).args(args).arg("--data").arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_goes_on_when_the_other_is_killed_and_comes_back() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica("one"), cluster.replica("two"));
    let (token, host) = (one.token(WEB, "10.0.0.7"), Host::new());
    let held = issue(&two.target(), &host, By::Token(&token), &Intent::new()).await.unwrap();
    drop(one);
    let second = issue(&two.target(), &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    assert_eq!(second.lineage().generation, 2);
    // It comes back on its data directory, while the API server is having a bad minute.
    cluster.api.trouble(Trouble::next(5, Fault::Answer(503)));
    let one = cluster.replica("one");
    cluster.api.disconnect_watches();
    cluster.api.forget_history();
    let third = issue(&one.target(), &host, By::Renewal(&second), &Intent::new()).await.unwrap();
    assert_eq!(third.lineage().generation, 3);
    // Each signs with an intermediate of its own.
    assert_ne!(second.response.chain[1], third.response.chain[1]);
    assert!(!cluster.api.all(&Resource::core("secrets")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_is_used_fifty_times_at_once_across_processes_yields_one_certificate() {
    let cluster = Cluster::start().await;
    let replicas = [cluster.replica("one"), cluster.replica("two")];
    let token = replicas[0].token(WEB, "10.0.0.7");
    let targets = [replicas[0].target(), replicas[1].target()];
    let uses: Vec<_> = (0..50)
        .map(|at| {
            let (target, token) = (targets[at % 2].clone(), token.clone());
            tokio::spawn(async move {
                issue(&target, &Host::new(), By::Token(&token), &Intent::new()).await
            })
        })
        .collect();
    let mut serials = Vec::new();
    for one in uses {
        match one.await.unwrap() {
            Ok(held) => serials.push(held.serial()),
            Err(status) => {
                let known = ["token_used", "contended"];
                assert!(known.contains(&reason(&status)), "{status}");
            }
        }
    }
    assert_eq!(serials.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_at_one_process_the_other_tells_within_two_seconds_and_refuses() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica("one"), cluster.replica("two"));
    let (token, host) = (one.token(WEB, "10.0.0.7"), Host::new());
    let held = issue(&one.target(), &host, By::Token(&token), &Intent::new()).await.unwrap();
    let other = two.token("spiffe://prod.example/ns/shop/sa/db", "10.0.0.8");
    let watcher = issue(&two.target(), &Host::new(), By::Token(&other), &Intent::new()).await;
    let mut connected = two.target().connect(Some(&watcher.unwrap())).await;
    let (_open, acks) = mpsc::channel(1);
    let updates = connected.client.watch_bundle(ReceiverStream::new(acks)).await.unwrap();
    let mut updates = updates.into_inner();
    let mut epoch = async || {
        let update = updates.message().await.unwrap().unwrap();
        BundleUpdate::try_from(update).unwrap().deny_list.unwrap().list.epoch()
    };
    let before = epoch().await;
    cli(&one.data, &["revoke", "--id", WEB, "--reason", "a test"]);
    let heard = timeout(PROMISED, async { while epoch().await == before {} }).await;
    heard.expect("heard in time");
    let refused = issue(&two.target(), &host, By::HostAlone, &Intent::new()).await;
    assert_refused(refused, tonic::Code::PermissionDenied, "id_denied");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_the_api_does_not_let_in_says_so_and_does_not_start() {
    let cluster = Cluster::start().await;
    cluster.api.allow_only(vec![]);
    let output = cluster.serve("one").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("docs/operate/kubernetes-store.md"), "{said}");
}

/// Makes a running pod of the service account `web` and a token of it, which the API knows.
fn pod(cluster: &Cluster, issuer: &harness::Cluster, uid: &str, address: &str, now: u64) -> String {
    let name = format!("web-{uid}");
    cluster.api.put(
        &Resource::core("pods"),
        serde_json::json!({
            "metadata": {"name": name, "namespace": "shop", "uid": uid},
            "spec": {"serviceAccountName": "web"},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        }),
    );
    let token = issuer.token("shop", "web", uid, now);
    cluster.api.allow_token(
        &token,
        PodToken {
            audiences: vec![format!("myelin-ca/{TRUST_DOMAIN}")],
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            pod: Some((name, uid.to_owned())),
            ..PodToken::default()
        },
    );
    token
}

/// A CA that asks the API server about pods of the namespace `shop`.
async fn reviewing(cluster: &Cluster, issuer: &harness::Cluster) -> TestCa {
    let kubeconfig = Some(cluster.dir.path().join("kubeconfig"));
    let mut kubernetes = issuer.config();
    kubernetes.review = Some(ReviewConfig { kubeconfig });
    let attest = AttestConfig { kubernetes: Some(kubernetes), machine_ca: None };
    TestCa::start_attesting(attest, &["shop"]).await
}

#[tokio::test]
async fn reviewed_pod_gets_its_own_address_and_one_that_is_gone_or_takes_anothers_gets_nothing() {
    let cluster = Cluster::start().await;
    let issuer = harness::Cluster::new(cluster.dir.path());
    let ca = reviewing(&cluster, &issuer).await;
    let now = ca.clock().seconds();
    let (host, token) = (Host::new(), pod(&cluster, &issuer, "one", "10.1.2.3", now));
    let by = By::Pod(&token, None);
    let held = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    let expected: std::net::IpAddr = "10.1.2.3".parse().unwrap();
    assert_eq!(held.svid().leaf().ip_sans, [expected]);
    let second = pod(&cluster, &issuer, "two", "10.1.2.3", now);
    let refused = issue(&ca.target(), &Host::new(), By::Pod(&second, None), &Intent::new()).await;
    assert_eq!(reason(&refused.err().unwrap()), "address_taken");
    // A fresh token at each renewal, of a pod that is there.
    let fresh = pod(&cluster, &issuer, "one", "10.1.2.3", now + 1);
    let by = By::Pod(&fresh, Some(&held));
    let renewed = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    cluster.api.remove(&Resource::core("pods"), "shop", "web-one");
    let late = issue(&ca.target(), &host, By::Pod(&fresh, Some(&renewed)), &Intent::new()).await;
    assert_refused(late, tonic::Code::PermissionDenied, "jwt_refused");
}

/// How a pod may be gone, and what becomes of a sidecar of it that asks once more.
#[tokio::test]
async fn address_of_a_pod_that_is_gone_is_the_next_pods_at_once_and_its_host_gets_nothing_more() {
    let pods = Resource::core("pods");
    let changed = |cluster: &Cluster, change: &dyn Fn(&mut serde_json::Value)| {
        let mut found = cluster.api.read(&Resource::core("pods"), "shop", "web-one").unwrap();
        change(&mut found);
        cluster.api.put(&Resource::core("pods"), found);
    };
    type Leaves<'a> = &'a dyn Fn(&Cluster);
    let removed: Leaves<'_> = &|it| drop(it.api.remove(&pods, "shop", "web-one"));
    let anew: Leaves<'_> = &|it| changed(it, &|pod| pod["metadata"]["uid"] = "other".into());
    let over: Leaves<'_> = &|it| changed(it, &|pod| pod["status"]["phase"] = "Succeeded".into());
    let failed: Leaves<'_> = &|it| changed(it, &|pod| pod["status"]["phase"] = "Failed".into());
    for leaves in [removed, anew, over, failed] {
        let cluster = Cluster::start().await;
        let issuer = harness::Cluster::new(cluster.dir.path());
        let ca = reviewing(&cluster, &issuer).await;
        let now = ca.clock().seconds();
        let (host, token) = (Host::new(), pod(&cluster, &issuer, "one", "10.1.2.3", now));
        let by = By::Pod(&token, None);
        let held = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
        let second = pod(&cluster, &issuer, "two", "10.1.2.3", now);
        leaves(&cluster);
        let next = issue(&ca.target(), &Host::new(), By::Pod(&second, None), &Intent::new()).await;
        let lives_at = |serial: &str| {
            let found = ca.authority().live().at("10.1.2.3".parse().unwrap(), 80, now).unwrap();
            assert_eq!(found.serial.to_string(), serial);
        };
        lives_at(&next.unwrap().serial());
        // Its own certificates stay what they are, and nothing follows from them: not even where no
        // evidence is asked for.
        let late = issue(&ca.target(), &host, By::Companion(&held), &Intent::new()).await;
        assert_refused(late, tonic::Code::PermissionDenied, "pod_gone");
        // And memory of it is no way back while the API server is away.
        cluster.api.vanish();
        let late = issue(&ca.target(), &host, By::Pod(&token, Some(&held)), &Intent::new()).await;
        let word = reason(&late.err().unwrap()).to_owned();
        assert_eq!(word, "review_unavailable", "it is asked before the journal is");
    }
}

#[tokio::test]
async fn address_that_a_live_pod_lost_is_the_next_pods_and_the_live_one_goes_on_at_its_own() {
    let cluster = Cluster::start().await;
    let issuer = harness::Cluster::new(cluster.dir.path());
    let ca = reviewing(&cluster, &issuer).await;
    let now = ca.clock().seconds();
    let (host, token) = (Host::new(), pod(&cluster, &issuer, "one", "10.1.2.3", now));
    let by = By::Pod(&token, None);
    let held = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    pod(&cluster, &issuer, "one", "10.1.2.9", now);
    let second = pod(&cluster, &issuer, "two", "10.1.2.3", now);
    issue(&ca.target(), &Host::new(), By::Pod(&second, None), &Intent::new()).await.unwrap();
    let by = By::Pod(&token, Some(&held));
    let renewed = issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
    let expected: std::net::IpAddr = "10.1.2.9".parse().unwrap();
    assert_eq!(renewed.svid().leaf().ip_sans, [expected]);
}

/// The twins: whoever is not known to be gone keeps its address.
#[tokio::test]
async fn address_stays_with_a_live_pod_with_one_that_nobody_can_be_asked_about_and_with_a_machine()
{
    let cluster = Cluster::start().await;
    let issuer = harness::Cluster::new(cluster.dir.path());
    let ca = reviewing(&cluster, &issuer).await;
    let now = ca.clock().seconds();
    let token = pod(&cluster, &issuer, "one", "10.1.2.3", now);
    issue(&ca.target(), &Host::new(), By::Pod(&token, None), &Intent::new()).await.unwrap();
    join(&ca, WEB, "10.1.2.4").await;
    let asks = async |uid: &str, address: &str| {
        let token = pod(&cluster, &issuer, uid, address, now);
        let asked = issue(&ca.target(), &Host::new(), By::Pod(&token, None), &Intent::new()).await;
        asked.map(drop).map_err(|status| reason(&status).to_owned())
    };
    let taken = Err("address_taken".to_owned());
    assert_eq!(asks("two", "10.1.2.3").await, taken, "it lives");
    assert_eq!(asks("three", "10.1.2.4").await, taken, "no pod, so nobody to ask about");
    cluster.api.remove(&Resource::core("pods"), "shop", "web-one");
    for fault in [Fault::Answer(503), Fault::Answer(403), Fault::Drop] {
        cluster.api.trouble(Trouble::next(usize::MAX, fault).on("GET").at("/pods/web-one"));
        assert_eq!(asks("two", "10.1.2.3").await, taken, "nobody says that it is gone");
        cluster.api.heal();
    }
    assert_eq!(asks("two", "10.1.2.3").await, Ok(()), "and now somebody does");
}
