//! A node: a network namespace for a pod, an API server, and the plugin's program.
//!
//! Never: a verdict.

// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::Parser;
use myelin_fake_api::{FakeApi, Resource};
use myelin_lab::{Netns, ground};
use myelin_sidecar::intercept::{self, InterceptArgs, State};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What an interface plugin before us may have answered.
pub(crate) const PREVIOUS: &str = r#"{"cniVersion":"1.1.0",  "ips":[{"address":"10.77.0.2/16"}],
  "interfaces":[{"name":"eth0","mtu":1450}],"dns":{},"not.of.us":[1.50]}"#;

/// What the webhook may have rendered, with exclusions of every kind.
pub(crate) const CONFIGURATION: &str = r#"
trust_domain = "cluster.local"
mesh_cidrs = ["10.0.0.0/8"]
ca.address = "10.96.0.5:15010"
[intercept]
exclude_outbound_ports = [5432]
exclude_inbound_ports = [22, 9100]
exclude_cidrs = ["192.0.2.0/24", "2001:db8::/32"]
exclude_uids = [999]
[[of_a_later_version]]
name = "x"
"#;

/// The same, as an operator would write it.
pub(crate) const FLAGS: &[&str] = &[
    "--exclude-outbound-port=5432",
    "--exclude-inbound-port=22,9100",
    "--exclude-cidr=192.0.2.0/24,2001:db8::/32",
    "--exclude-uid=999",
];

pub(crate) struct Node {
    pub(crate) api: FakeApi,
    pub(crate) netns: Netns,
    pub(crate) dir: TempDir,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[derive(Parser)]
struct Intercept {
    #[command(flatten)]
    args: InterceptArgs,
}

impl Node {
    /// None: somebody wished to skip what needs namespaces.
    pub(crate) async fn start() -> Result<Option<Self>> {
        let Some(_ground) = ground::enter_unless_skipped()? else { return Ok(None) };
        let (netns, dir) = (Netns::new()?, tempfile::tempdir()?);
        let api = FakeApi::start().await?;
        std::fs::write(dir.path().join("kubeconfig"), api.kubeconfig())?;
        Ok(Some(Self { api, netns, dir }))
    }

    /// The pod `shop/web`, injected with this configuration.
    pub(crate) fn injected(&self, configuration: &str) {
        self.pod(
            json!({ "annotations": { "myelin.dev/sidecar-config": configuration } }),
            json!({}),
        );
    }

    pub(crate) fn pod(&self, metadata: Value, spec: Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
        });
        pod["metadata"]["name"] = "web".into();
        pod["metadata"]["namespace"] = "shop".into();
        pod["metadata"]["uid"] = "uid-1".into();
        self.api.put(&Resource::core("pods"), pod);
    }

    /// The network configuration as a runtime hands it over.
    pub(crate) fn network(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "myelin-cni",
            "kubeconfig": self.dir.path().join("kubeconfig"),
            "exclude_namespaces": ["kube-system"],
            "runtimeConfig": {},
            "prevResult": null,
        })
    }

    /// The same as text, with what the plugins before us made.
    pub(crate) fn input(&self) -> String {
        self.network()
            .to_string()
            .replace("\"prevResult\":null", &format!("\"prevResult\":{PREVIOUS}"))
    }

    /// A call for the pod `shop/web`.
    pub(crate) async fn call(&self, command: &str) -> Result<Said> {
        self.call_with(command, &self.input(), &[]).await
    }

    /// A call with another input and some other variables; an empty one is left out.
    pub(crate) async fn call_with(
        &self,
        command: &str,
        input: &str,
        changes: &[(&str, &str)],
    ) -> Result<Said> {
        let netns = self.netns.path();
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;\
                    K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=uid-1";
        let usual = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "0123456789ab"),
            ("CNI_NETNS", netns.to_str().context("a path")?),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", args),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        let changed =
            |name: &str| changes.iter().find(|(key, _)| *key == name).map(|(_, new)| *new);
        let variables = usual.map(|(name, value)| (name, changed(name).unwrap_or(value)));
        let kept = variables.into_iter().filter(|(_, value)| !value.is_empty());
        let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        program(env!("CARGO_BIN_EXE_myelin-cni"), &[], kept, input).await
    }

    /// The program as an operator runs it.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<Said> {
        program(env!("CARGO_BIN_EXE_myelin-cni"), args, Vec::new(), "").await
    }

    /// What `myelin-sidecar intercept` does with these arguments in the pod.
    pub(crate) fn intercept(&self, args: &[&str]) -> Result<String> {
        intercept_in(&self.netns, args)
    }

    /// The rules that are in the pod, counters and all.
    pub(crate) fn rules(&self) -> Result<String> {
        self.intercept(&["show", "--json"])
    }

    pub(crate) fn has_no_rules(&self) -> Result<bool> {
        let plan = intercept::Plan::new(intercept::Config::default())?;
        Ok(self.netns.run(|| intercept::state(&plan))?? == State::Absent)
    }
}

impl Said {
    /// Number and text of the error, which must look as the specification says.
    pub(crate) fn refusal(&self) -> Result<(u64, String)> {
        anyhow::ensure!(!self.success, "it succeeded: {self:?}");
        let said: Value = serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))?;
        let text = |key: &str| said[key].as_str().with_context(|| format!("no {key}: {said}"));
        let version = text("cniVersion")?;
        anyhow::ensure!(["1.1.0", "1.0.0", "0.3.1"].contains(&version), "{version}");
        let (msg, details) = (text("msg")?, text("details")?);
        anyhow::ensure!(!msg.is_empty() && !msg.contains('\n') && !details.contains('\n'));
        Ok((said["code"].as_u64().context("no code")?, format!("{msg}: {details}")))
    }
}

/// Rules as an operator writes or shows them, in any namespace.
pub(crate) fn intercept_in(netns: &Netns, args: &[&str]) -> Result<String> {
    let all = ["intercept"].iter().chain(args);
    let args = Intercept::try_parse_from(all)?.args;
    Ok(netns.run(|| intercept::run(&args))??)
}

/// Runs a program to its end, beside the API server.
pub(crate) async fn program(
    path: impl AsRef<Path>,
    args: &[&str],
    variables: Vec<(String, String)>,
    input: &str,
) -> Result<Said> {
    let path: PathBuf = path.as_ref().to_owned();
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let input = input.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut child = std::process::Command::new(&path)
            .args(args)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // One that does not read its input has closed it.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        child.wait_with_output()
    });
    let ended = ended.await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { success: ended.status.success(), out: text(ended.stdout), err: text(ended.stderr) })
}
