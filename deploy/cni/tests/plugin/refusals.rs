//! Calls that cannot be meant, each with the specification's number, and nothing done.
//!
//! Never: an API server in trouble; that is `api`.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_sidecar::intercept::{self, State};
use serde_json::{Value, json};

use crate::stage::{CONFIGURATION, Node};

#[tokio::test]
async fn an_input_that_is_no_network_of_ours_is_refused_by_its_number() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    let with = |key: &str, value: Value| {
        let mut network: Value = serde_json::from_str(&node.input()).unwrap();
        network[key] = value;
        network.to_string()
    };
    let without = |key: &str| {
        let mut network: Value = serde_json::from_str(&node.input()).unwrap();
        network.as_object_mut().unwrap().remove(key);
        network.to_string()
    };
    let long = format!("{{\"x\":\"{}\"}}", "a".repeat(1024 * 1024));
    for (command, input, code, named) in [
        ("ADD", String::new(), 6, "standard input"),
        ("ADD", "garbage".to_owned(), 6, "standard input"),
        ("ADD", "\u{0}\u{1}{".to_owned(), 6, "standard input"),
        ("DEL", "{\"cniVersion\":".to_owned(), 6, "standard input"),
        ("VERSION", "[]".to_owned(), 6, "standard input"),
        ("ADD", long, 6, "bytes"),
        ("ADD", with("cniVersion", json!("0.2.0")), 1, "0.2.0"),
        ("CHECK", with("cniVersion", json!("9.0.0")), 1, "9.0.0"),
        ("DEL", without("cniVersion"), 1, "0.1.0"),
        ("CHECK", with("cniVersion", json!("0.3.1")), 1, "0.3.1"),
        ("STATUS", with("cniVersion", json!("1.0.0")), 1, "1.0.0"),
        ("GC", with("cniVersion", json!("1.0.0")), 1, "1.0.0"),
        ("ADD", with("exclude_namespace", json!([])), 2, "exclude_namespace"),
        ("ADD", without("prevResult"), 7, "prevResult"),
        ("ADD", with("prevResult", json!([1])), 7, "prevResult"),
        ("ADD", without("kubeconfig"), 7, "kubeconfig"),
        ("ADD", with("kubeconfig", json!("relative")), 7, "kubeconfig"),
    ] {
        let (seen, text) = node.call_with(command, &input, &[]).await?.refusal()?;
        ensure!(seen == code && text.contains(named), "{command} {named}: {seen} {text}");
    }
    ensure!(node.has_no_rules()?);
    // Twins: the versions that we speak.
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let added = node.call_with("ADD", &with("cniVersion", json!(version)), &[]).await?;
        ensure!(added.success, "{version}: {added:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_environment_that_cannot_be_meant_is_refused_and_its_variable_named() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    let file = node.dir.path().join("kubeconfig");
    let file = file.to_str().unwrap();
    for (command, name, value, code) in [
        ("add", "CNI_COMMAND", "add", 4),
        ("ADD", "CNI_CONTAINERID", "", 4),
        ("ADD", "CNI_CONTAINERID", "../../x", 4),
        ("ADD", "CNI_IFNAME", "", 4),
        ("DEL", "CNI_IFNAME", "a/b", 4),
        ("ADD", "CNI_NETNS", "", 4),
        ("ADD", "CNI_NETNS", "/run/netns/gone", 4),
        ("ADD", "CNI_NETNS", file, 4),
        ("CHECK", "CNI_NETNS", "", 4),
        // The runtime need not clean up after a container that is gone.
        ("CHECK", "CNI_NETNS", "/run/netns/gone", 3),
        ("ADD", "CNI_ARGS", "K8S_POD_NAMESPACE=shop", 4),
        ("ADD", "CNI_ARGS", "K8S_POD_NAME=../secrets/x;K8S_POD_NAMESPACE=shop", 4),
    ] {
        let said = node.call_with(command, &node.input(), &[(name, value)]).await?;
        let (seen, text) = said.refusal()?;
        ensure!(seen == code && text.contains(name), "{name}={value}: {seen} {text}");
    }
    ensure!(node.has_no_rules()?);
    Ok(())
}

/// Rules in the node's own namespace would take the node off the wire.
#[tokio::test]
async fn the_nodes_own_network_gets_no_rules_under_whatever_name() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    for own in ["/proc/self/ns/net".to_owned(), format!("/proc/{}/ns/net", std::process::id())] {
        let said = node.call_with("ADD", &node.input(), &[("CNI_NETNS", &own)]).await?;
        let (code, text) = said.refusal()?;
        ensure!(code == 4 && text.contains("node's own"), "{own}: {code} {text}");
    }
    let plan = intercept::Plan::new(intercept::Config::default())?;
    ensure!(intercept::state(&plan)? == State::Absent, "the node has rules");
    Ok(())
}

#[tokio::test]
async fn a_pod_whose_configuration_cannot_be_meant_does_not_start() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    for (configuration, named) in [
        ("[intercept", "sidecar-config:1"),
        ("[intercept]\nexclude_ports = [1]", "exclude_ports"),
        ("[intercept]\nexclude_cidrs = [\"0.0.0.0/0\"]", "IPv4"),
        ("[intercept]\nexclude_inbound_ports = [15006]", "15006"),
    ] {
        node.injected(configuration);
        for command in ["ADD", "CHECK"] {
            let (code, text) = node.call(command).await?.refusal()?;
            ensure!(code == 101 && text.contains(named), "{configuration}: {code} {text}");
            ensure!(text.contains("shop/web"), "{text}");
        }
        ensure!(node.has_no_rules()?);
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_that_asks_for_a_sidecar_and_was_given_none_does_not_start() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    let labelled = |value: &str| json!({ "labels": { "myelin.dev/inject": value } });
    node.pod(labelled("enabled"), json!({}));
    let (code, text) = node.call("ADD").await?.refusal()?;
    ensure!(code == 101 && text.contains("has none"), "{code} {text}");
    // Twins: one that asks to be left alone, and one in the node's own network.
    node.pod(labelled("disabled"), json!({}));
    ensure!(node.call("ADD").await?.success);
    node.pod(labelled("enabled"), json!({ "hostNetwork": true }));
    ensure!(node.call("ADD").await?.success && node.has_no_rules()?);
    Ok(())
}
