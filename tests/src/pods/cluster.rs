//! What a pod lives in: the node, the wire, the API server's part, the CA and the controller as pods,
//! and a namespace that is meshed. Called by the suite.
//!
//! Never: two clusters on one wire; every test has its own.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use myelin_fake_api::{FakeApi, Resource};
use myelin_lab::wire::WireReport;
use myelin_lab::{Lab, Pod, addresses};
use serde_json::{Value, json};

use super::admission::{TOKEN_VOLUME, Webhook, with_token};
use super::container::text;
use super::engine::Engine;
use super::front::Front;
use super::kubelet::Played;
use super::tokens::Signer;
use crate::http;
use crate::mesh::enter;
use crate::metrics::Metrics;
use crate::watch::Watch;
use crate::workload::OPS_PORT;

/// The namespace whose pods are meshed.
pub const NAMESPACE: &str = "shop";
/// One that nobody has labelled.
pub const OUTSIDE: &str = "outside";
/// The mesh's own.
pub const SYSTEM: &str = "myelin-system";

/// Where the API server listens on the node.
const API_PORT: u16 = 443;
/// What is asked in plaintext by design: probes and metrics, which say no more than states.
const PLAIN_PORTS: [u16; 3] = [OPS_PORT, 15_021, 15_022];

/// Where a datagram goes that nobody reads; who sends it asks for the other's link address first.
const DISCARD: u16 = 9;

/// The addresses of pods: one that is free again is the next one that is given.
struct Numbers {
    next: u8,
    free: Vec<u8>,
}

/// One node with a mesh on it.
pub struct Cluster {
    pub engine: Engine,
    /// Where the kubelet and the API server are.
    pub node: Pod,
    pub api: FakeApi,
    pub watch: Watch,
    pub(super) front: Front,
    pub(super) api_server: Vec<(String, String)>,
    pub(super) signer: Signer,
    pub(super) system: Vec<Arc<Played>>,
    pub(super) webhook: Option<Webhook>,
    /// By whom pods reach addresses of Services.
    pub(super) gateway: Option<IpAddr>,
    workload: String,
    lab: Lab,
    numbers: Mutex<Numbers>,
}

impl Cluster {
    /// With a CA and a controller that are ready. `None` where it is skipped by name.
    pub async fn start() -> Result<Option<Self>> {
        let Some(_ground) = enter()? else { return Ok(None) };
        let Some(engine) = Engine::open()? else { return Ok(None) };
        let lab = Lab::new()?;
        let watch = Watch::start(&lab, 0)?;
        let node = lab.pod("node", &addresses(1))?;
        let at = SocketAddr::new(node.v4(), API_PORT);
        let api = FakeApi::start().await?;
        let signer = Signer::new()?;
        let front = Front::serve(node.tcp_listen(at).await?, api.address(), signer.jwks())?;
        let api_server = [("HOST", at.ip().to_string()), ("PORT", at.port().to_string())];
        let api_server =
            api_server.map(|(what, is)| (format!("KUBERNETES_SERVICE_{what}"), is)).to_vec();
        let mut cluster = Self {
            engine,
            node,
            api,
            watch,
            front,
            api_server,
            signer,
            system: Vec::new(),
            webhook: None,
            gateway: None,
            workload: String::new(),
            lab,
            numbers: Mutex::new(Numbers { next: 2, free: Vec::new() }),
        };
        cluster.workload = cluster.engine.image("pod-workload", &workload()?).await?;
        let word = json!({ "word": BASE64_STANDARD.encode(cluster.watch.canary()) });
        let root = json!({ "ca.crt": cluster.front.root_pem });
        for namespace in [NAMESPACE, OUTSIDE, SYSTEM] {
            let enabled = json!({ "myelin.dev/inject": "enabled" });
            let labels = if namespace == NAMESPACE { enabled } else { json!({}) };
            let metadata = json!({ "name": namespace, "labels": labels });
            cluster.api.put(&Resource::core("namespaces"), json!({ "metadata": metadata }));
            cluster.put("secrets", namespace, "word", json!({ "data": word }));
            cluster.put("configmaps", namespace, "kube-root-ca.crt", json!({ "data": root }));
        }
        cluster.start_systems().await?;
        Ok(Some(cluster))
    }

    /// The API server's way with a new pod of the meshed namespace: asks the webhook, keeps what it
    /// makes of it.
    pub async fn admit(&self, pod: &Value) -> Result<Value> {
        let webhook = self.webhook.as_ref().context("there is no controller yet")?;
        let admitted = webhook.admit(&self.node, &with_token(pod)?).await?;
        // After a webhook has changed a pod, the API server's own admission sees it again.
        let admitted = with_token(&admitted)?;
        let name = text(&pod["metadata"], "name")?;
        if pod["metadata"]["namespace"] == NAMESPACE {
            let first = &admitted["spec"]["initContainers"];
            ensure!(first[0]["name"] == "myelin-init", "{name} was not injected: {admitted}");
            ensure!(first[1]["name"] == "myelin-sidecar", "{name} was not injected: {admitted}");
            let ours = first.as_array().into_iter().flatten().take(2);
            let mut mounts = ours.filter_map(|one| one["volumeMounts"].as_array()).flatten();
            let token = mounts.any(|mount| mount["name"] == TOKEN_VOLUME);
            ensure!(!token, "a container of the mesh's holds a token for the API: {admitted}");
        }
        Ok(admitted)
    }

    /// Admits and plays a pod of the meshed namespace until each of its containers is ready.
    pub async fn play(&self, pod: &Value) -> Result<Played> {
        let played = self.sandbox(&self.admit(pod).await?)?;
        self.run_pod(&played).await?;
        Ok(played)
    }

    /// The same without a mesh: a namespace that nobody has labelled.
    pub async fn play_outside(&self, pod: &Value) -> Result<Played> {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = json!(OUTSIDE);
        let played = self.sandbox(&with_token(&pod)?)?;
        self.run_pod(&played).await?;
        Ok(played)
    }

    /// A pod of the workload's image in the meshed namespace, with one container.
    pub fn pod(&self, name: &str, args: &[&str]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app": name } },
            "spec": {
                "serviceAccountName": name,
                "containers": [self.container("app", args)],
                "volumes": [
                    { "name": "word", "secret": { "secretName": "word" } },
                ],
            },
        })
    }

    pub fn container(&self, name: &str, args: &[&str]) -> Value {
        json!({
            "name": name, "image": self.workload, "args": args,
            "volumeMounts": [{ "name": "word", "mountPath": "/word", "readOnly": true }],
        })
    }

    /// The metrics of a pod's sidecar, asked from the node as a scraper would.
    pub async fn metrics(&self, of: &Played) -> Result<Metrics> {
        Metrics::parse(&self.ops(of, "/metrics").await?.body)
    }

    /// A page of the sidecar's ops port, asked from the node.
    pub async fn ops(&self, of: &Played, path: &str) -> Result<http::Response> {
        http::request(&self.node, SocketAddr::new(of.address(), OPS_PORT), "GET", path).await
    }

    /// TLS 1.3 only, but for probes and metrics, and nobody could read the word.
    pub async fn demand_clean_wire(&self) -> Result<WireReport> {
        self.watch.demand_clean_but(|server| PLAIN_PORTS.contains(&server.port())).await
    }

    pub(super) fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) {
        object["metadata"] = json!({ "name": name, "namespace": namespace });
        self.api.put(&Resource::core(plural), object);
    }

    /// The end of a pod's network: its address is anybody's.
    pub(super) fn release(&self, pod: &Pod) -> Result<()> {
        pod.unplug()?;
        let IpAddr::V4(address) = pod.v4() else { return Ok(()) };
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.free.push(address.octets()[3]);
        Ok(())
    }

    /// A pod's network, as the network plugin makes it.
    pub(super) fn plug(&self, name: &str) -> Result<Pod> {
        // A cluster of one family of addresses, as the chart's values are.
        let (number, others) = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let [address, _] = addresses(number);
        let pod = self.lab.pod(name, &[address])?;
        // Whoever knew the address's last owner learns of the new one, as network plugins see to.
        pod.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            for other in others {
                socket.send_to(b"", (addresses(other)[0], DISCARD))?;
            }
            std::io::Result::Ok(())
        })??;
        if let Some(gateway) = self.gateway {
            pod.default_route(gateway)?;
        }
        Ok(pod)
    }
}

impl Numbers {
    /// The next address, and those that others may have.
    fn take(&mut self) -> (u8, Vec<u8>) {
        let number = self.free.pop().unwrap_or(self.next);
        self.next = self.next.max(number + 1);
        (number, (1..self.next).filter(|other| *other != number).collect())
    }
}

/// The program that plays the workloads, beside our own.
fn workload() -> Result<std::path::PathBuf> {
    match crate::binaries::workload() {
        Ok(path) => Ok(path),
        Err(why) => bail!("{why:#}: `cargo build -p myelin-tests --bins` makes it"),
    }
}
