//! Pods whose rules are missing, found by the node's processes and named or repaired. The node's /proc is
//! a directory here, with control groups as kubelets name them and real namespaces.
//!
//! Never: a container runtime.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use myelin_fake_api::Resource;
use myelin_lab::Netns;
use serde_json::{Value, json};

use crate::stage::{CONFIGURATION, FLAGS, Node, Said, intercept_in};

/// A container's ID, from one byte.
fn id(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

const RUNNING: &str = r#"{"running": {"startedAt": "2026-01-01T00:00:00Z"}}"#;
const ENDED: &str = r#"{"terminated": {"exitCode": 0}}"#;

/// What the API says of a pod.
fn told(node: &Node, name: &str, on: &str, annotations: Value, byte: u8, state: &str) {
    let state: Value = serde_json::from_str(state).expect("JSON");
    let id = format!("containerd://{}", id(byte));
    node.api.put(
        &Resource::core("pods"),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "shop", "annotations": annotations },
            "spec": { "nodeName": on },
            "status": { "containerStatuses": [{ "containerID": id, "state": state }] },
        }),
    );
}

/// A pod on a node, with one container; and its process, if it runs there. Else it has ended.
fn pod(
    node: &Node,
    name: &str,
    on: &str,
    annotations: Value,
    byte: u8,
    netns: Option<&Netns>,
) -> Result<()> {
    let state = if netns.is_some() { RUNNING } else { ENDED };
    told(node, name, on, annotations, byte, state);
    let Some(netns) = netns else { return Ok(()) };
    let process = node.dir.path().join(format!("proc/{}", 1_000 + u32::from(byte)));
    fs::create_dir_all(process.join("ns"))?;
    let group = format!(
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a_1.slice/cri-containerd-{}.scope\n",
        id(byte)
    );
    fs::write(process.join("cgroup"), group)?;
    symlink(netns.path(), process.join("ns/net"))?;
    Ok(())
}

fn injected() -> Value {
    json!({ "myelin.dev/sidecar-config": CONFIGURATION })
}

async fn repair(node: &Node, more: &[&str]) -> Result<Said> {
    let proc = format!("--proc-dir={}", node.dir.path().join("proc").display());
    let kubeconfig = format!("--kubeconfig={}", node.dir.path().join("kubeconfig").display());
    let args = [&["repair", "--node=node-1", proc.as_str(), kubeconfig.as_str()], more].concat();
    node.run(&args).await
}

fn has_rules(netns: &Netns) -> Result<bool> {
    Ok(intercept_in(netns, &["show", "--json"])?.contains("15001"))
}

#[tokio::test]
async fn pods_without_their_rules_are_named_and_repaired_and_others_left_alone() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    let [bare, changed, well, plain, elsewhere] =
        [(); 5].map(|()| Netns::new().expect("a namespace"));
    pod(&node, "without", "node-1", injected(), 1, Some(&bare))?;
    pod(&node, "changed", "node-1", injected(), 2, Some(&changed))?;
    pod(&node, "well", "node-1", injected(), 3, Some(&well))?;
    pod(&node, "plain", "node-1", json!({}), 4, Some(&plain))?;
    pod(&node, "elsewhere", "node-2", injected(), 5, Some(&elsewhere))?;
    pod(&node, "ended", "node-1", injected(), 6, None)?;
    // More than one page of them.
    for byte in 10..80 {
        pod(&node, &format!("more-{byte}"), "node-1", json!({}), byte, None)?;
    }
    intercept_in(&well, &[&["apply"], FLAGS].concat())?;
    intercept_in(&changed, &["apply"])?;
    let named = repair(&node, &[]).await?;
    ensure!(!named.success && named.out.lines().count() == 2, "{named:?}");
    ensure!(named.out.contains("shop/without: its rules are missing"), "{named:?}");
    ensure!(named.out.contains("shop/changed: its rules are others"), "{named:?}");
    ensure!(!has_rules(&bare)?, "it was only to be named");
    let repaired = repair(&node, &["--apply"]).await?;
    ensure!(repaired.success && repaired.out.lines().count() == 2, "{repaired:?}");
    let rules = intercept_in(&well, &["show", "--json"])?;
    for netns in [&bare, &changed] {
        ensure!(intercept_in(netns, &["show", "--json"])? == rules);
    }
    for netns in [&plain, &elsewhere] {
        ensure!(!has_rules(netns)?);
    }
    let nothing = repair(&node, &[]).await?;
    ensure!(nothing.success && nothing.out.is_empty(), "{nothing:?}");
    Ok(())
}

#[tokio::test]
async fn running_pod_whose_process_is_not_found_is_unknown_and_no_success() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    fs::create_dir_all(node.dir.path().join("proc"))?;
    told(&node, "hidden", "node-1", injected(), 1, RUNNING);
    told(&node, "plain", "node-1", json!({}), 2, RUNNING);
    for more in [&[][..], &["--apply"]] {
        let said = repair(&node, more).await?;
        ensure!(!said.success && said.out.lines().count() == 1, "{said:?}");
        ensure!(said.out.contains("shop/hidden: unknown: its containers run"), "{said:?}");
    }
    // Nothing of it could send: it waits for its start, or is over.
    for state in [ENDED, r#"{"waiting": {"reason": "PodInitializing"}}"#, "{}"] {
        told(&node, "hidden", "node-1", injected(), 1, state);
        let said = repair(&node, &[]).await?;
        ensure!(said.success && said.out.is_empty(), "{state}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_said_and_is_no_success() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    let netns = Netns::new()?;
    let wrong = json!({ "myelin.dev/sidecar-config": "[intercept" });
    pod(&node, "wrong", "node-1", wrong, 1, Some(&netns))?;
    let said = repair(&node, &["--apply"]).await?;
    ensure!(!said.success && said.out.contains("shop/wrong: "), "{said:?}");
    // One that asks for a sidecar and was given none cannot be helped by rules.
    pod(&node, "vain", "node-1", json!({}), 2, Some(&netns))?;
    let mut vain = node.api.read(&Resource::core("pods"), "shop", "vain").unwrap();
    vain["metadata"]["labels"] = json!({ "myelin.dev/inject": "enabled" });
    node.api.put(&Resource::core("pods"), vain);
    let said = repair(&node, &["--apply"]).await?;
    ensure!(!said.success && said.out.contains("shop/vain: "), "{said:?}");
    ensure!(!has_rules(&netns)?);
    // A process that shows the node's own network is none of a pod.
    let link = node.dir.path().join("proc/1001/ns/net");
    fs::remove_file(&link)?;
    symlink("/proc/self/ns/net", &link)?;
    let said = repair(&node, &["--apply"]).await?;
    ensure!(!said.success && said.out.contains("node's own"), "{said:?}");
    node.api.vanish();
    let said = repair(&node, &[]).await?;
    ensure!(!said.success && said.err.contains("API server"), "{said:?}");
    let odd = node.run(&["repair", "--node=a/../b"]).await?;
    ensure!(!odd.success && odd.err.contains("no name of a node"), "{odd:?}");
    Ok(())
}
