//! The order of a start: nothing of the workload's runs before its sidecar has an identity, and what
//! runs then is in the mesh, init containers included.
//!
//! Never: a start that is judged by a clock.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::pods::{Cluster, Played};
use serde_json::json;

use crate::{PORT, endpoint};

#[tokio::test]
async fn the_app_starts_after_the_proxy_and_an_init_container_reaches_the_network() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    let server = cluster.play(&cluster.pod("server", &["serve", &PORT.to_string()])).await?;
    let at = endpoint(&server);
    let mut pod = cluster.pod("client", &["get", &at, "/word"]);
    // The author's own native sidecar: probed while nothing else of the workload's runs.
    let mut cache = cluster.container("cache", &["serve", "8090"]);
    cache["restartPolicy"] = json!("Always");
    cache["startupProbe"] = json!({ "httpGet": { "path": "/ready", "port": 8090 } });
    let migrate = cluster.container("migrate", &["get", &at, "/word"]);
    pod["spec"]["initContainers"] = json!([migrate, cache]);

    // While the CA has no identity for it, there is a sidecar, and nothing else.
    let client = cluster.sandbox(&cluster.admit(&pod).await?)?;
    client.hold_addresses();
    let held = async {
        waits(&cluster, &client).await?;
        cluster.tell_addresses(&client);
        anyhow::Ok(())
    };
    let (started, held) = tokio::join!(cluster.run_pod(&client), held);
    held?;
    started?;
    let order = ["myelin-init", "myelin-sidecar", "migrate", "cache", "app"];
    ensure!(client.started() == order, "they started in the order {:?}", client.started());
    let ended = cluster.complete(&client).await?;
    let expected = [("app", 0), ("cache", 0), ("myelin-sidecar", 0)];
    ensure!(ended.is(&expected), "{ended:?}: {}", client.container("app")?.last_words());
    let metrics = cluster.metrics(&server).await?;
    ensure!(metrics.outcome("inbound", "completed") >= 2.0, "{:?}", metrics.outcomes());
    cluster.demand_clean_wire().await?;

    // The twin: the same init container outside of the mesh gets nothing, and its pod never starts.
    let stranger = cluster.play_outside(&named(&pod, "stranger")).await;
    let why = format!("{:#}", stranger.err().context("an unmeshed init container was served")?);
    ensure!(why.contains("an init container failed"), "{why}");
    ensure!(cluster.watch.report().await?.canary_hits() == 0, "the word was readable");
    Ok(())
}

/// Until the sidecar has asked in vain; nothing of the workload's has been started.
async fn waits(cluster: &Cluster, client: &Played) -> Result<()> {
    let limit = Duration::from_secs(60);
    let what = "the sidecar is started";
    myelin_tests::programs::eventually(what, limit, async || {
        Ok(client.find("myelin-sidecar").is_some())
    })
    .await?;
    let sidecar = client.container("myelin-sidecar")?;
    sidecar.says("pod_no_address", limit).await?;
    ensure!(client.started() == ["myelin-init", "myelin-sidecar"], "{:?}", client.started());
    let ready = cluster.ops(client, "/ready").await?;
    ensure!(ready.status == 503, "ready without an identity: {ready:?}");
    Ok(())
}

fn named(pod: &serde_json::Value, name: &str) -> serde_json::Value {
    let mut pod = pod.clone();
    pod["metadata"]["name"] = json!(name);
    pod
}
