//! A mesh with a controller: its binary in a pod of its own, beside a fake of the Kubernetes API that
//! only it can reach, and an SVID from the CA by a service-account token.
//!
//! Never: a real cluster; what the fake says is what the test wrote.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Result, ensure};
use myelin_fake_api::{FakeApi, Resource};
use myelin_lab::{Pod, Proc};
use myelin_tests::programs::{LIMIT, eventually};
use myelin_tests::{Mesh, Options, Spec, Workload, binaries};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{self, Cluster};

pub(crate) const CONTROLLER: &str = "spiffe://mesh.test/ns/myelin-system/sa/myelin-controller";
const DIRECTORY_PORT: u16 = 15_014;
const OPS_PORT: u16 = 15_022;

/// Virtual addresses, which nobody has.
pub(crate) const WEB: [&str; 2] = ["10.77.0.200", "fd77::200"];
pub(crate) const DB: [&str; 2] = ["10.77.0.201", "fd77::201"];
/// The port of a service, and that of its pods.
pub(crate) const PORT: u16 = 80;
pub(crate) const TARGET: u16 = 7_000;

pub(crate) struct Stage {
    pub(crate) mesh: Mesh,
    pub(crate) api: FakeApi,
    controller: Pod,
    process: Mutex<Option<Proc>>,
    dir: PathBuf,
    _shared: TempDir,
}

/// One endpoint of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Behind<'a> {
    pub(crate) address: IpAddr,
    pub(crate) pod: &'a str,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
}

impl<'a> Behind<'a> {
    pub(crate) fn new(address: IpAddr, pod: &'a str) -> Self {
        Self { address, pod, ready: true, terminating: false }
    }
}

impl Stage {
    pub(crate) async fn new() -> Result<Option<Self>> {
        let shared = tempfile::Builder::new().prefix("myelin-services-").tempdir()?;
        std::fs::set_permissions(shared.path(), PermissionsExt::from_mode(0o755))?;
        let cluster = Cluster::new(shared.path())?;
        let ca_flags = cluster.flags(&["myelin-system"]);
        let options = Options { ca_flags, ..Options::default() };
        let Some(mesh) = Mesh::start(options).await? else { return Ok(None) };
        let controller = mesh.pod("controller")?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let api = FakeApi::serve_on(controller.tcp_listen(loopback).await?)?;
        let dir = mesh.subdir("controller")?;
        let pod =
            cluster::Pod { namespace: "myelin-system", account: "myelin-controller", uid: "c0" };
        std::fs::write(dir.join("token"), cluster.token(&pod, "myelin-ca/mesh.test", 3_600)?)?;
        std::fs::write(dir.join("bundle.pem"), mesh.ca.bundle_pem().await?)?;
        std::fs::write(dir.join("kubeconfig"), api.kubeconfig())?;
        let stage = Self { mesh, api, controller, process: Mutex::new(None), dir, _shared: shared };
        stage.start_controller()?;
        Ok(Some(stage))
    }

    pub(crate) fn start_controller(&self) -> Result<()> {
        let dir = self.dir.display();
        let config = self.dir.join("controller.toml");
        std::fs::write(
            &config,
            format!(
                "trust_domain = \"mesh.test\"\nmesh_cidrs = [\"10.77.0.0/24\", \"fd77::/64\"]\n\
                 [ca]\naddress = [\"{}\"]\nbundle_file = \"{dir}/bundle.pem\"\n\
                 [sidecar]\nimage = \"nobody-pulls-it\"\n\
                 [webhook]\nlisten = \"[::]:15443\"\ncertificate_file = \"{dir}/none.crt\"\nkey_file = \"{dir}/none.key\"\n\
                 [services]\naddress = [\"{}\"]\ntoken_file = \"{dir}/token\"\nstate_dir = \"{dir}/state\"\npolicies = true\n\
                 [log]\nlevel = \"debug\"\n",
                self.mesh.ca.endpoint(),
                self.directory(),
            ),
        )?;
        let process = self
            .controller
            .command(binaries::controller()?)
            .args(["run", "--config"])
            .arg(&config)
            .arg("--kubeconfig")
            .arg(self.dir.join("kubeconfig"))
            .label("controller")
            .tee(self.dir.join("controller.log"))
            .spawn()?;
        *self.process.lock().expect("no holder of the lock panics") = Some(process);
        Ok(())
    }

    pub(crate) fn kill_controller(&self) {
        if let Some(process) = self.process.lock().expect("no holder of the lock panics").take() {
            process.kill9();
        }
    }

    pub(crate) fn directory(&self) -> SocketAddr {
        SocketAddr::new(self.controller.v4(), DIRECTORY_PORT)
    }

    /// A number of the controller's own page.
    pub(crate) async fn controller_counts(&self, name: &str) -> Result<f64> {
        let ops = SocketAddr::from(([127, 0, 0, 1], OPS_PORT));
        let page = myelin_tests::http::request(&self.controller, ops, "GET", "/metrics").await?;
        Ok(myelin_tests::metrics::Metrics::parse(&page.body)?.sum(name, &[]))
    }

    /// A workload whose sidecar asks the controller.
    pub(crate) async fn workload(&self, name: &str) -> Result<Workload> {
        self.workload_asking(name, CONTROLLER).await
    }

    /// A workload whose sidecar asks the controller who may enter.
    pub(crate) async fn governed(&self, name: &str) -> Result<Workload> {
        let address = self.directory();
        let tables = format!("[policies]\naddress = [\"{address}\"]\nid = \"{CONTROLLER}\"\n");
        self.mesh.workload_of(Spec::new(name).tables(&tables)).await
    }

    pub(crate) async fn workload_asking(&self, name: &str, id: &str) -> Result<Workload> {
        let tables = format!("[services]\naddress = [\"{}\"]\nid = \"{id}\"\n", self.directory());
        self.mesh.workload_of(Spec::new(name).tables(&tables)).await
    }

    pub(crate) fn service(&self, name: &str, addresses: &[&str]) {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "test" },
            "spec": {
                "clusterIP": addresses[0], "clusterIPs": addresses,
                "selector": { "app": name },
                "ports": [{ "name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET }],
            },
        });
        self.api.put(&Resource::core("services"), object);
    }

    /// A pod of this account, at these addresses.
    pub(crate) fn pod(&self, name: &str, account: &str, addresses: &[IpAddr]) {
        let ips: Vec<Value> = addresses.iter().map(|it| json!({ "ip": it.to_string() })).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "test" },
            "spec": { "serviceAccountName": account, "nodeName": "node-1" },
            "status": { "podIPs": ips },
        });
        self.api.put(&Resource::core("pods"), object);
    }

    /// The pod of this workload, at its addresses.
    pub(crate) fn pod_of(&self, workload: &Workload, labels: &Value) {
        let name = &workload.spec.name;
        let addresses: Vec<Value> =
            workload.addresses().iter().map(|it| json!({ "ip": it.to_string() })).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("{name}-0"), "namespace": "test", "labels": labels },
            "spec": { "serviceAccountName": name, "nodeName": "node-1" },
            "status": { "phase": "Running", "podIPs": addresses },
        });
        self.api.put(&Resource::core("pods"), object);
    }

    /// Writes a policy of the workloads' namespace; what its status said stays.
    pub(crate) fn policy(&self, kind: &str, name: &str, spec: &Value) {
        let kind = Resource::new("policy.myelin.dev", "v1alpha1", kind);
        let before = self.api.read(&kind, "test", name).unwrap_or_default();
        let mut object = json!({ "metadata": { "name": name, "namespace": "test" }, "spec": spec });
        if before["status"].is_object() {
            object["status"] = before["status"].clone();
        }
        self.api.put(&kind, object);
    }

    pub(crate) fn no_policy(&self, kind: &str, name: &str) {
        let kind = Resource::new("policy.myelin.dev", "v1alpha1", kind);
        self.api.remove(&kind, "test", name);
    }

    /// Status and reason of a policy's `Accepted`, once they are of its present spec.
    pub(crate) fn condition(&self, kind: &str, name: &str) -> String {
        let kind = Resource::new("policy.myelin.dev", "v1alpha1", kind);
        let object = self.api.read(&kind, "test", name).unwrap_or_default();
        let ours = &object["status"]["conditions"][0];
        if ours["observedGeneration"] != object["metadata"]["generation"] {
            return String::new();
        }
        let text = |field: &str| ours[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("status"), text("reason"))
    }

    /// The slice of one family of a service.
    pub(crate) fn slice(&self, service: &str, behind: &[Behind<'_>]) {
        let is_v6 = behind.iter().any(|it| it.address.is_ipv6());
        let endpoints: Vec<Value> = behind
            .iter()
            .map(|it| {
                json!({
                    "addresses": [it.address.to_string()],
                    "conditions": {
                        "ready": it.ready, "serving": true, "terminating": it.terminating,
                    },
                    "targetRef": { "kind": "Pod", "namespace": "test", "name": it.pod },
                })
            })
            .collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{}", if is_v6 { "v6" } else { "v4" }),
                "namespace": "test",
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": if is_v6 { "IPv6" } else { "IPv4" },
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": TARGET, "protocol": "TCP" }],
        });
        self.api.put(&Resource::new("discovery.k8s.io", "v1", "endpointslices"), object);
    }
}

pub(crate) fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), PORT)
}

/// Waits until a connection to this place is answered with this word.
pub(crate) async fn reaches(from: &Workload, to: SocketAddr, word: &str) -> Result<()> {
    let what = format!("{} reaches {word} at {to}", from.spec.name);
    eventually(&what, LIMIT, async || {
        let said = crate::says(from, to).await?;
        ensure!(said == word, "{said:?} answered");
        Ok(true)
    })
    .await
}
