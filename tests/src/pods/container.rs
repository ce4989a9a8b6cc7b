//! One container of a pod's spec as podman's words, and the container that runs then. Called by
//! `kubelet`.
//!
//! Never: a field of the container's own level that is passed over because nobody here knows it: a pod
//! that says more than is played would look shown and is not.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::engine::Engine;
use super::volumes::Volumes;
use crate::programs::eventually;

/// What a container may say here. Ports are for readers; requests are the scheduler's, and what a
/// container says at its end is nobody's here.
const FIELDS: [&str; 17] = [
    "name",
    "image",
    "imagePullPolicy",
    "args",
    "command",
    "env",
    "ports",
    "resources",
    "restartPolicy",
    "securityContext",
    "volumeMounts",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
];

const SECURITY: [&str; 8] = [
    "allowPrivilegeEscalation",
    "capabilities",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
];

/// What a pod may say for all of its containers.
const POD_SECURITY: [&str; 6] =
    ["fsGroup", "fsGroupChangePolicy", "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile"];

/// Where programs find the API server by cluster DNS.
pub(super) const API_NAME: &str = "kubernetes.default.svc";

/// A container that was started.
#[derive(Debug)]
pub struct Container {
    pub name: String,
    pub spec: Value,
    id: String,
    full_name: String,
    log: PathBuf,
    /// Its process, there as long as it runs.
    process: PathBuf,
}

/// Where a container is started.
pub(super) struct Sandbox<'a> {
    pub(super) engine: &'a Engine,
    pub(super) pod: &'a str,
    pub(super) pod_security: &'a Value,
    pub(super) netns: PathBuf,
    pub(super) address: String,
    /// What the kubelet tells every container of where the API server is.
    pub(super) api_server: &'a [(String, String)],
    pub(super) volumes: &'a Volumes,
}

impl Sandbox<'_> {
    pub(super) async fn start(&self, spec: &Value) -> Result<Container> {
        let name = text(spec, "name")?;
        let what = || format!("{}: container {name}", self.pod);
        known(spec, &FIELDS).with_context(what)?;
        let full_name = format!("{}-{name}", self.pod);
        // A container that is started again is another one.
        let full_name = (0..)
            .map(|times| match times {
                0 => full_name.clone(),
                again => format!("{full_name}-{again}"),
            })
            .find(|name| !self.engine.dir().join("pids").join(name).exists())
            .context("a name is free")?;
        let log = self.engine.subdir("logs")?.join(&full_name);
        let mut args: Vec<String> = [
            "run",
            "--detach",
            "--name",
            &full_name,
            "--pull",
            "never",
            "--add-host",
            &format!("{API_NAME}:{}", self.api_server[0].1),
            "--dns",
            "none",
            "--systemd",
            "false",
            "--http-proxy=false",
            "--log-driver",
            "k8s-file",
        ]
        .map(str::to_owned)
        .to_vec();
        args.push(format!("--network=ns:{}", self.netns.display()));
        args.push(format!("--log-opt=path={}", log.display()));
        let pidfile = self.engine.subdir("pids")?.join(&full_name);
        args.push(format!("--pidfile={}", pidfile.display()));
        args.push(format!("--cgroup-parent={}", self.engine.cgroup_parent()));
        args.push("--cgroups=no-conmon".to_owned());
        self.secure(spec, &mut args).with_context(what)?;
        self.surround(spec, &mut args).with_context(what)?;
        if let Some(command) = spec["command"].as_array() {
            let quoted = serde_json::to_string(command)?;
            args.push(format!("--entrypoint={quoted}"));
        }
        args.push(text(spec, "image")?.to_owned());
        args.extend(texts(&spec["args"])?.into_iter().map(|arg| self.expanded(spec, arg)));
        let id = self.engine.podman(&args).await.with_context(what)?;
        let pid = fs::read_to_string(&pidfile).with_context(|| format!("{full_name}: no PID"))?;
        let process = Path::new("/proc").join(pid.trim());
        Ok(Container { name: name.to_owned(), spec: spec.clone(), id, full_name, log, process })
    }

    /// Who it runs as, and what it may.
    fn secure(&self, spec: &Value, args: &mut Vec<String>) -> Result<()> {
        let security = &spec["securityContext"];
        known(security, &SECURITY)?;
        known(self.pod_security, &POD_SECURITY)?;
        ensure!(security["privileged"] != true, "privileged containers are not played");
        let either = |field: &str| match &security[field] {
            Value::Null => self.pod_security[field].clone(),
            own => own.clone(),
        };
        let (user, group) = (either("runAsUser"), either("runAsGroup"));
        if either("runAsNonRoot") == true {
            ensure!(user.as_u64() != Some(0), "runAsNonRoot, and runAsUser is 0");
        }
        match (user.as_u64(), group.as_u64()) {
            (Some(user), Some(group)) => args.push(format!("--user={user}:{group}")),
            (Some(user), None) => args.push(format!("--user={user}")),
            (None, None) => {}
            (None, Some(_)) => bail!("runAsGroup without runAsUser"),
        }
        if let Some(group) = self.pod_security["fsGroup"].as_u64() {
            args.push(format!("--group-add={group}"));
        }
        if security["allowPrivilegeEscalation"] == false {
            args.push("--security-opt=no-new-privileges".to_owned());
        }
        if security["readOnlyRootFilesystem"] == true {
            args.extend(["--read-only".to_owned(), "--read-only-tmpfs=false".to_owned()]);
        }
        for capability in texts(&security["capabilities"]["drop"])? {
            args.push(format!("--cap-drop={}", capability.to_lowercase()));
        }
        for capability in texts(&security["capabilities"]["add"])? {
            args.push(format!("--cap-add={capability}"));
        }
        match either("seccompProfile")["type"].as_str() {
            Some("RuntimeDefault") => {}
            None | Some("Unconfined") => args.push("--security-opt=seccomp=unconfined".to_owned()),
            Some(other) => bail!("seccompProfile {other} is not played"),
        }
        Ok(())
    }

    /// Its environment, files and bounds.
    fn surround(&self, spec: &Value, args: &mut Vec<String>) -> Result<()> {
        for (name, value) in self.api_server {
            args.push(format!("--env={name}={value}"));
        }
        for variable in spec["env"].as_array().into_iter().flatten() {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("status.podIP") => &self.address,
                Some(other) => bail!("env from {other} is not played"),
                None => variable["value"].as_str().unwrap_or_default(),
            };
            args.push(format!("--env={}={value}", text(variable, "name")?));
        }
        for mount in spec["volumeMounts"].as_array().into_iter().flatten() {
            known(mount, &["name", "mountPath", "readOnly", "subPath"])?;
            let from = self.volumes.place(text(mount, "name")?, mount["subPath"].as_str())?;
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            let to = text(mount, "mountPath")?;
            args.push(format!("--volume={}:{to}:{mode}", from.display()));
        }
        if let Some(memory) = spec["resources"]["limits"]["memory"].as_str() {
            let bytes = memory.strip_suffix("Mi").context("memory in other units than Mi")?;
            args.push(format!("--memory={bytes}m"));
        }
        Ok(())
    }

    /// `$(NAME)` in an argument, as the kubelet expands it.
    fn expanded(&self, spec: &Value, argument: String) -> String {
        let variables = spec["env"].as_array().into_iter().flatten();
        let ip = variables.filter(|v| v["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP");
        ip.filter_map(|variable| variable["name"].as_str())
            .fold(argument, |argument, name| argument.replace(&format!("$({name})"), &self.address))
    }
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.process.exists()
    }

    /// Waits for its end, and yields its exit code.
    pub async fn ended(&self, engine: &Engine, limit: Duration) -> Result<i32> {
        let what = format!("{} ends", self.full_name);
        let waited = eventually(&what, limit, async || Ok(!self.is_running())).await;
        waited.with_context(|| self.last_words())?;
        let code = engine.podman(&["wait".to_owned(), self.id.clone()]).await?;
        code.parse().with_context(|| format!("no exit code: {code:?}"))
    }

    pub async fn signal(&self, engine: &Engine, signal: &str) -> Result<()> {
        let args = ["kill", "--signal", signal, &self.id].map(str::to_owned);
        match engine.podman(&args).await {
            // It has ended in that moment.
            Err(_) if !self.is_running() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Runs a command inside.
    pub async fn exec(&self, engine: &Engine, command: &[String]) -> Result<String> {
        let mut args = vec!["exec".to_owned(), self.id.clone()];
        args.extend_from_slice(command);
        engine.podman(&args).await
    }

    /// All it has said, in the form of the container runtime's log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn says(&self, words: &str, limit: Duration) -> Result<()> {
        let what = format!("{} says {words:?}", self.full_name);
        let said = eventually(&what, limit, async || {
            let said = self.log().contains(words);
            ensure!(said || self.is_running(), "it ended without");
            Ok(said)
        });
        said.await.with_context(|| self.last_words())
    }

    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(12).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        let fate = if self.is_running() { "runs" } else { "has ended" };
        format!("{} {fate}: {}", self.full_name, lines.join(" | "))
    }
}

/// Refuses every field but these.
pub(super) fn known(object: &Value, fields: &[&str]) -> Result<()> {
    for field in object.as_object().into_iter().flatten() {
        ensure!(fields.contains(&field.0.as_str()), "field {} is not played here", field.0);
    }
    Ok(())
}

pub(super) fn text<'a>(object: &'a Value, field: &str) -> Result<&'a str> {
    object[field].as_str().with_context(|| format!("no text {field} in {object}"))
}

pub(super) fn texts(list: &Value) -> Result<Vec<String>> {
    let each = list.as_array().into_iter().flatten();
    each.map(|entry| Ok(entry.as_str().context("not a text")?.to_owned())).collect()
}
