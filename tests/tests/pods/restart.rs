//! A sidecar that is killed, as a node short of memory does, and started again by the kubelet while
//! its workload runs on.
//!
//! Never: a pod that is made anew.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::pods::{Cluster, Played};
use serde_json::{Value, json};

use crate::{PORT, endpoint};

const SIDECAR: &str = "myelin-sidecar";

#[tokio::test]
async fn a_killed_sidecar_comes_back_in_its_pod_and_nothing_passes_meanwhile() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    let server = cluster.play(&restricted(&cluster, "server")).await?;
    let client = cluster.play(&restricted(&cluster, "client")).await?;
    asks(&cluster, &client, &server).await?;
    for killed in [&client, &server] {
        let sidecar = killed.container(SIDECAR)?;
        sidecar.signal(&cluster.engine, "KILL").await?;
        ensure!(sidecar.ended(&cluster.engine, Duration::from_secs(60)).await? == 137);
        let passed = asks(&cluster, &client, &server).await;
        ensure!(passed.is_err(), "{}: it passed without its sidecar", killed.name());
        cluster.restart(killed, SIDECAR).await?;
        asks(&cluster, &client, &server).await?;
    }
    cluster.demand_clean_wire().await.map(drop)
}

/// As the `restricted` policy wants pods, and with a group that owns their volumes.
fn restricted(cluster: &Cluster, name: &str) -> Value {
    let mut pod = cluster.pod(name, &["serve", &PORT.to_string()]);
    pod["spec"]["securityContext"] = json!({
        "fsGroup": 2000, "runAsGroup": 1000, "runAsNonRoot": true, "runAsUser": 1000,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
    });
    pod
}

async fn asks(cluster: &Cluster, client: &Played, server: &Played) -> Result<()> {
    let question = ["/pod-workload", "get", &endpoint(server), "/word"].map(str::to_owned);
    client.container("app")?.exec(&cluster.engine, &question).await.map(drop)
}
