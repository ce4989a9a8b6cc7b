//! The kubelet's part: one pod from its sandbox to its end. Init containers one after the other, a
//! native sidecar up to its startup probe, then the containers with theirs; at the end the
//! containers first and the sidecars after them, in the other order. Called by `cluster` and the
//! suite.
//!
//! Never: a restart that a test did not ask for; what ends before its time fails the test.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use myelin_fake_api::Resource;
use myelin_lab::Pod;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::container::{Container, Sandbox, known, text, texts};
use super::probe;
use super::tokens::Bearer;
use super::volumes::{Source, Volumes};
use crate::programs::{eventually, random_word};

/// Far beyond what a start takes on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// What Kubernetes gives a pod to end when it does not say itself.
const DEFAULT_GRACE_SECONDS: u64 = 30;

const POD_FIELDS: [&str; 12] = [
    "containers",
    "initContainers",
    "volumes",
    "serviceAccountName",
    "securityContext",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "affinity",
    "enableServiceLinks",
    "automountServiceAccountToken",
    "nodeName",
    "hostname",
];

/// A pod on this node.
#[derive(Debug)]
pub struct Played {
    /// As it was admitted.
    pub object: Value,
    /// Its namespace and addresses.
    pub pod: Pod,
    volumes: Volumes,
    /// In the order of their start.
    started: Mutex<Vec<std::sync::Arc<Container>>>,
    /// The addresses are told when the test says so.
    held: AtomicBool,
}

/// How a pod ended: each container with its exit code, in the order of their ends.
#[derive(Debug)]
pub struct Ended(pub Vec<(String, i32)>);

impl Ended {
    /// Just these, in this order, with these exit codes.
    pub fn is(&self, expected: &[(&str, i32)]) -> bool {
        let seen = self.0.iter().map(|(name, code)| (name.as_str(), *code));
        seen.eq(expected.iter().copied())
    }

    pub fn codes(&self) -> BTreeMap<&str, i32> {
        self.0.iter().map(|(name, code)| (name.as_str(), *code)).collect()
    }
}

impl Cluster {
    /// Sandbox, volumes and the pod's object: all that is there before a container runs.
    pub fn sandbox(&self, object: &Value) -> Result<Played> {
        known(&object["spec"], &POD_FIELDS)?;
        let mut object = object.clone();
        let name = text(&object["metadata"], "name")?.to_owned();
        let uid = random_word()?;
        object["metadata"]["uid"] = json!(uid);
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["status"] = json!({ "phase": "Pending" });
        let account = object["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
        object["spec"]["serviceAccountName"] = json!(account);
        let namespace = text(&object["metadata"], "namespace")?.to_owned();
        let pod = self.plug(&name)?;
        self.api.put(&Resource::core("pods"), object.clone());
        let bearer = Bearer { namespace, account, pod: name.clone(), uid };
        let source = Source {
            api: &self.api,
            front: &self.front,
            signer: &self.signer,
            pod: &object,
            bearer: &bearer,
        };
        let dir = self.engine.subdir(&format!("volumes-{name}"))?;
        let volumes = Volumes::make(&dir, &source).with_context(|| format!("pod {name}"))?;
        let started = Mutex::default();
        Ok(Played { object, pod, volumes, started, held: AtomicBool::new(false) })
    }

    /// From the sandbox to the readiness of every container.
    pub async fn run_pod(&self, played: &Played) -> Result<()> {
        self.init(played).await?;
        let containers = list(&played.object, "containers");
        for spec in &containers {
            self.run(played, spec).await?;
        }
        for spec in &containers {
            let container = played.container(text(spec, "name")?)?;
            for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
                self.pass(played, &container, kind).await?;
            }
        }
        Ok(())
    }

    /// Init containers in their order; those that go on running up to their startup probe.
    async fn init(&self, played: &Played) -> Result<()> {
        let mut told = false;
        for spec in &list(&played.object, "initContainers") {
            let container = self.run(played, spec).await?;
            if spec["restartPolicy"] == "Always" {
                // The kubelet tells the API server the addresses some time after the sandbox: a
                // sidecar may well have asked the CA before that.
                if !std::mem::replace(&mut told, true) && !played.held.load(Ordering::Relaxed) {
                    self.tell_addresses(played);
                }
                self.pass(played, &container, "startupProbe").await?;
                self.pass(played, &container, "livenessProbe").await?;
                continue;
            }
            let code = container.ended(&self.engine, START_LIMIT).await?;
            ensure!(code == 0, "an init container failed: {}", container.last_words());
        }
        if !told && !played.held.load(Ordering::Relaxed) {
            self.tell_addresses(played);
        }
        Ok(())
    }

    /// Starts a container anew that has ended, in the same pod, and waits until it is up.
    pub async fn restart(&self, played: &Played, name: &str) -> Result<()> {
        let ended = played.container(name)?;
        ended.ended(&self.engine, START_LIMIT).await?;
        played.started.lock().expect("no holder panics").retain(|one| one.name != name);
        let container = self.run(played, &ended.spec).await?;
        self.pass(played, &container, "startupProbe").await
    }

    async fn run(&self, played: &Played, spec: &Value) -> Result<std::sync::Arc<Container>> {
        let sandbox = Sandbox {
            engine: &self.engine,
            pod: played.name(),
            pod_security: &played.object["spec"]["securityContext"],
            netns: played.pod.netns().path(),
            address: played.address().to_string(),
            api_server: &self.api_server,
            volumes: &played.volumes,
        };
        let container = std::sync::Arc::new(sandbox.start(spec).await?);
        played.started.lock().expect("no holder panics").push(container.clone());
        Ok(container)
    }

    /// Asks until the probe passes, as long as the container runs.
    async fn pass(&self, played: &Played, container: &Container, kind: &str) -> Result<()> {
        let probe = &container.spec[kind];
        if probe.is_null() {
            return Ok(());
        }
        let what = format!("{kind} of {} {} passes", played.name(), container.name);
        let passed = eventually(&what, START_LIMIT, async || {
            // It will not come back: there is nothing more to wait for.
            if !container.is_running() {
                return Ok(true);
            }
            probe::ask(&self.engine, &self.node, played.address(), container, probe).await?;
            Ok(true)
        });
        passed.await.with_context(|| container.last_words())?;
        ensure!(container.is_running(), "{kind}: {}", container.last_words());
        Ok(())
    }

    /// Tells the API server which addresses the pod has.
    pub fn tell_addresses(&self, played: &Played) {
        let ips: Vec<Value> = played
            .pod
            .addresses()
            .iter()
            .map(|address| json!({ "ip": address.to_string() }))
            .collect();
        let host = self.node.v4().to_string();
        self.set_status(
            played,
            json!({
                "phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips,
                "hostIP": host, "hostIPs": [{ "ip": host }],
            }),
        );
    }

    fn set_status(&self, played: &Played, status: Value) {
        let mut object = played.object.clone();
        object["status"] = status;
        self.api.put(&Resource::core("pods"), object);
    }

    /// Waits for the containers of a Job, then ends its sidecars: the pod has succeeded, or failed.
    pub async fn complete(&self, played: &Played) -> Result<Ended> {
        let mut ended = Vec::new();
        for container in played.main() {
            let code = container.ended(&self.engine, START_LIMIT).await?;
            ended.push((container.name.clone(), code));
        }
        self.end_sidecars(played, self.deadline(played), &mut ended).await?;
        let fine = ended.iter().all(|(_, code)| *code == 0);
        let phase = if fine { "Succeeded" } else { "Failed" };
        // The object stays, with the address that the pod had.
        let address = played.address().to_string();
        let ips = json!([{ "ip": address }]);
        self.set_status(played, json!({ "phase": phase, "podIP": address, "podIPs": ips }));
        self.release(&played.pod)?;
        Ok(Ended(ended))
    }

    /// Deletes the pod: preStop and SIGTERM to the containers, then the sidecars.
    pub async fn delete(&self, played: &Played) -> Result<Ended> {
        let deadline = self.deadline(played);
        let mut ended = Vec::new();
        let main = played.main();
        let ends = main.iter().map(|container| self.end(container, deadline));
        for (container, code) in main.iter().zip(futures_util::future::join_all(ends).await) {
            ended.push((container.name.clone(), code?));
        }
        self.end_sidecars(played, deadline, &mut ended).await?;
        let (metadata, pods) = (&played.object["metadata"], Resource::core("pods"));
        self.api.remove(&pods, text(metadata, "namespace")?, played.name());
        self.release(&played.pod)?;
        Ok(Ended(ended))
    }

    fn deadline(&self, played: &Played) -> Instant {
        let grace = &played.object["spec"]["terminationGracePeriodSeconds"];
        let grace = grace.as_u64().unwrap_or(DEFAULT_GRACE_SECONDS);
        Instant::now() + Duration::from_secs(grace)
    }

    async fn end_sidecars(
        &self,
        played: &Played,
        deadline: Instant,
        ended: &mut Vec<(String, i32)>,
    ) -> Result<()> {
        for sidecar in played.sidecars().iter().rev() {
            ended.push((sidecar.name.clone(), self.end(sidecar, deadline).await?));
        }
        Ok(())
    }

    /// One container, by its preStop, SIGTERM and, when the pod's time is up, SIGKILL.
    async fn end(&self, container: &Container, deadline: Instant) -> Result<i32> {
        if !container.is_running() {
            return container.ended(&self.engine, START_LIMIT).await;
        }
        let hook = &container.spec["lifecycle"]["preStop"];
        if let Some(seconds) = hook["sleep"]["seconds"].as_u64() {
            sleep_until(deadline.min(Instant::now() + Duration::from_secs(seconds))).await;
        } else if hook["exec"].is_object() {
            container.exec(&self.engine, &texts(&hook["exec"]["command"])?).await?;
        } else if !hook.is_null() {
            bail!("a preStop of this kind is not played: {hook}");
        }
        container.signal(&self.engine, "TERM").await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(code) = container.ended(&self.engine, left).await {
            return Ok(code);
        }
        container.signal(&self.engine, "KILL").await?;
        container.ended(&self.engine, START_LIMIT).await
    }
}

impl Played {
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn address(&self) -> IpAddr {
        self.pod.v4()
    }

    /// Keeps the API server from knowing the pod's addresses: nobody issues an identity for it.
    pub fn hold_addresses(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// The containers that were started, in the order of it.
    pub fn started(&self) -> Vec<String> {
        let started = self.started.lock().expect("no holder panics");
        started.iter().map(|container| container.name.clone()).collect()
    }

    /// Writes a file into one of its volumes; a reader sees the old one or the new one.
    pub fn write(&self, volume: &str, file: &str, text: &str) -> Result<()> {
        let place = self.volumes.place(volume, None)?;
        let beside = place.join(format!("{file}.new"));
        std::fs::write(&beside, text)?;
        Ok(std::fs::rename(&beside, place.join(file))?)
    }

    /// One of its containers, if it was started.
    pub fn find(&self, name: &str) -> Option<std::sync::Arc<Container>> {
        let started = self.started.lock().expect("no holder panics");
        started.iter().find(|container| container.name == name).cloned()
    }

    pub fn container(&self, name: &str) -> Result<std::sync::Arc<Container>> {
        self.find(name).with_context(|| format!("{}: {name} was not started", self.name()))
    }

    fn main(&self) -> Vec<std::sync::Arc<Container>> {
        let names = list(&self.object, "containers");
        names.iter().filter_map(|spec| self.find(spec["name"].as_str()?)).collect()
    }

    fn sidecars(&self) -> Vec<std::sync::Arc<Container>> {
        let init = list(&self.object, "initContainers");
        let always = init.iter().filter(|spec| spec["restartPolicy"] == "Always");
        always.filter_map(|spec| self.find(spec["name"].as_str()?)).collect()
    }
}

fn list(object: &Value, field: &str) -> Vec<Value> {
    object["spec"][field].as_array().cloned().unwrap_or_default()
}
