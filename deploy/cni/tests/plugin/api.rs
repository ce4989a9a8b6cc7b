//! An API server that is silent, refuses, or does not know the pod: it does not start before it is known
//! whether it is meshed.
//!
//! Never: a pod that gets through without an answer.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_fake_api::{Fault, Resource, Trouble};

use crate::stage::{CONFIGURATION, Node};

/// ADD and CHECK say "try again", and nothing was written.
async fn demand_later(node: &Node, what: &str) -> Result<()> {
    for command in ["ADD", "CHECK"] {
        let (code, text) = node.call(command).await?.refusal()?;
        ensure!(code == 11 && text.contains("shop/web"), "{what}: {code} {text}");
    }
    ensure!(node.has_no_rules()?, "{what}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_known_for_certain_is_asked_again_and_never_lets_a_pod_start() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    demand_later(&node, "no such pod").await?;
    node.injected(CONFIGURATION);
    for status in [401, 403, 429, 500, 503] {
        node.api.trouble(Trouble::next(2, Fault::Answer(status)));
        demand_later(&node, &status.to_string()).await?;
    }
    for fault in [Fault::Drop, Fault::LoseAnswer] {
        node.api.trouble(Trouble::next(2, fault.clone()));
        demand_later(&node, &format!("{fault:?}")).await?;
    }
    node.api.vanish();
    demand_later(&node, "vanished").await?;
    node.api.heal();
    // A StatefulSet's pod of before: the kubelet speaks of another one.
    let mut pod = node.api.read(&Resource::core("pods"), "shop", "web").unwrap();
    pod["metadata"]["uid"] = "uid-0".into();
    node.api.put(&Resource::core("pods"), pod.clone());
    demand_later(&node, "another pod").await?;
    // The image of a static pod is another object, and says whose image it is.
    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "uid-1".into();
    node.api.put(&Resource::core("pods"), pod);
    ensure!(node.call("ADD").await?.success && node.call("CHECK").await?.success);
    node.intercept(&["remove"])?;
    // The twin.
    node.injected(CONFIGURATION);
    ensure!(node.call("ADD").await?.success && node.call("CHECK").await?.success);
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_not_waited_for_without_an_end() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    node.api.trouble(Trouble::next(1, Fault::Delay(Duration::from_secs(3_600))));
    let (code, text) = node.call("ADD").await?.refusal()?;
    ensure!(code == 11 && text.contains("did not answer within 10s"), "{code} {text}");
    ensure!(node.has_no_rules()?);
    Ok(())
}

#[tokio::test]
async fn without_a_way_to_the_api_nothing_starts() -> Result<()> {
    let Some(node) = Node::start().await? else { return Ok(()) };
    node.injected(CONFIGURATION);
    let path = node.dir.path().join("kubeconfig");
    for text in ["", "no: kubeconfig", "{\"clusters\":["] {
        std::fs::write(&path, text)?;
        demand_later(&node, text).await?;
    }
    std::fs::remove_file(&path)?;
    demand_later(&node, "no file").await
}
