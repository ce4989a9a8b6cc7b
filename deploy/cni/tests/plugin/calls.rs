//! What a runtime's calls do to the rules of a pod: ADD, CHECK, DEL, GC, STATUS, VERSION.
//!
//! Never: a call that fails; those are in `refusals` and `api`.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_lab::Netns;
use serde_json::{Value, json};

use crate::stage::{CONFIGURATION, FLAGS, Node, PREVIOUS, intercept_in};

#[tokio::test]
async fn add_writes_exactly_what_intercept_apply_writes_and_passes_the_result_through() -> Result<()>
{
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    let added = node.call("ADD").await?;
    ensure!(added.success && added.out == PREVIOUS && added.err.is_empty(), "{added:?}");
    let by_hand = Netns::new()?;
    intercept_in(&by_hand, &[&["apply"], FLAGS].concat())?;
    let rules = node.rules()?;
    ensure!(rules == intercept_in(&by_hand, &["show", "--json"])?, "{rules}");
    let checked = node.call("CHECK").await?;
    ensure!(checked.success && checked.out.is_empty(), "{checked:?}");
    // Again: nothing changes.
    ensure!(node.call("ADD").await?.out == PREVIOUS && node.rules()? == rules);
    // A pod that ends keeps its rules until its namespace ends.
    let deleted = node.call("DEL").await?;
    ensure!(deleted.success && deleted.out.is_empty() && node.rules()? == rules, "{deleted:?}");
    Ok(())
}

#[tokio::test]
async fn check_fails_when_rules_are_missing_or_others_and_add_brings_them_back() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    for damage in [&["remove"][..], &["apply", "--exclude-inbound-port=8080"][..]] {
        ensure!(node.call("ADD").await?.success);
        ensure!(node.call("CHECK").await?.success, "the twin");
        node.intercept(damage)?;
        let (code, text) = node.call("CHECK").await?.refusal()?;
        ensure!(code == 100 && text.contains("sidecar-config"), "{damage:?}: {code} {text}");
    }
    ensure!(node.call("ADD").await?.success && node.call("CHECK").await?.success);
    Ok(())
}

#[tokio::test]
async fn whoever_is_not_injected_only_gets_the_result_back() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    let annotated = json!({ "annotations": { "myelin.dev/sidecar-config": CONFIGURATION } });
    let asked = |node: &Node| node.api.requests().len();
    // No annotation; the node's own network; no pod at all; a namespace that is never injected.
    let bare = "IgnoreUnknown=1;K8S_POD_NAME=of-podman";
    let system = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns";
    for (metadata, spec, args, asks) in [
        (json!({}), json!({}), None, 1),
        (annotated.clone(), json!({ "hostNetwork": true }), None, 1),
        (annotated.clone(), json!({}), Some(bare), 0),
        (annotated, json!({}), Some(system), 0),
    ] {
        node.pod(metadata, spec);
        let changes: Vec<_> = args.iter().map(|args| ("CNI_ARGS", *args)).collect();
        let before = asked(&node);
        let added = node.call_with("ADD", &node.input(), &changes).await?;
        ensure!(added.success && added.out == PREVIOUS, "{args:?}: {added:?}");
        ensure!(asked(&node) - before == asks, "{args:?}");
        ensure!(node.has_no_rules()?, "{args:?}");
        ensure!(node.call_with("CHECK", &node.input(), &changes).await?.success, "{args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn del_does_not_mind_what_is_gone() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.api.vanish();
    for netns in ["", "/run/netns/gone"] {
        let deleted = node.call_with("DEL", &node.input(), &[("CNI_NETNS", netns)]).await?;
        ensure!(deleted.success && deleted.out.is_empty(), "{netns}: {deleted:?}");
    }
    // Nor that the way to the API has been taken away, with the plugin's installation.
    std::fs::remove_file(node.dir.path().join("kubeconfig"))?;
    ensure!(node.call("DEL").await?.success);
    ensure!(node.call("DEL").await?.success, "twice");
    Ok(())
}

#[tokio::test]
async fn version_status_and_gc_answer_as_the_specification_says() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    // A runtime asks in its own newest version, and hands over nothing else that means anything.
    let dummy =
        ["CNI_NETNS", "CNI_IFNAME", "CNI_CONTAINERID", "CNI_PATH"].map(|name| (name, "dummy"));
    for asked in ["1.1.0", "0.3.1", "9.0.0"] {
        let input = json!({ "cniVersion": asked }).to_string();
        let said = node.call_with("VERSION", &input, &dummy).await?;
        let said: Value = serde_json::from_str(&said.out)?;
        ensure!(said["cniVersion"] == asked);
        ensure!(said["supportedVersions"] == json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
    let mut network = node.network();
    network["cni.dev/valid-attachments"] = json!([{ "containerID": "a", "ifname": "eth0" }]);
    let collected = node.call_with("GC", &network.to_string(), &[]).await?;
    ensure!(collected.success && collected.out.is_empty(), "{collected:?}");
    let status = node.call("STATUS").await?;
    ensure!(status.success && status.out.is_empty(), "{status:?}");
    // An API server that is away makes pods wait, not the node unready.
    node.api.vanish();
    ensure!(node.call("STATUS").await?.success);
    std::fs::remove_file(node.dir.path().join("kubeconfig"))?;
    let (code, _) = node.call("STATUS").await?.refusal()?;
    ensure!(code == 50, "{code}");
    Ok(())
}
