//! Probes of every kind in strict mode, run by a kubelet that has no identity.
//!
//! Never: a probe that passes whatever the workload does.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use myelin_tests::http;
use myelin_tests::pods::{Cluster, Played, ask};
use serde_json::{Value, json};

use crate::PORT;

const GRPC_PORT: u16 = 9_090;

#[tokio::test]
async fn probes_pass_with_the_workload_and_its_ports_take_no_plaintext_for_them() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    let mut pod = cluster.pod("server", &["serve", &PORT.to_string(), &GRPC_PORT.to_string()]);
    let app = &mut pod["spec"]["containers"][0];
    app["ports"] = json!([{ "name": "web", "containerPort": PORT }]);
    app["startupProbe"] = json!({ "tcpSocket": { "port": PORT } });
    app["livenessProbe"] = json!({ "httpGet": { "path": "/live", "port": "web" } });
    app["readinessProbe"] = json!({ "grpc": { "port": GRPC_PORT } });
    let mut other = cluster.container("other", &["serve", "8081"]);
    other["readinessProbe"] = json!({ "exec": { "command": ["/pod-workload", "true"] } });
    pod["spec"]["containers"].as_array_mut().unwrap().push(other);
    // It is ready when each of them has passed.
    let server = cluster.play(&pod).await?;
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let probe = &server.container("app")?.spec[kind];
        ensure!(probe["httpGet"]["port"] == 15_021, "{kind} asks elsewhere: {probe}");
    }

    // The twins. As their author wrote them, they would be plaintext on the workload's own ports.
    let originals = server.object["metadata"]["annotations"]["myelin.dev/original-probes"].as_str();
    let originals: Value = serde_json::from_str(originals.unwrap())?;
    let mut original = originals["app"]["livenessProbe"].clone();
    original["httpGet"]["port"] = json!(PORT);
    ensure!(passes(&cluster, &server, "app", &original).await.is_err(), "plaintext was answered");
    for port in [PORT, GRPC_PORT] {
        let at = SocketAddr::new(server.address(), port);
        let plain = http::request(&cluster.node, at, "GET", "/word").await;
        ensure!(plain.is_err(), "port {port} answered in plaintext: {plain:?}");
    }
    let metrics = cluster.metrics(&server).await?;
    ensure!(metrics.outcome("inbound", "plaintext_refused") >= 3.0, "{:?}", metrics.outcomes());
    let failing = json!({ "exec": { "command": ["/pod-workload", "unknown"] } });
    ensure!(passes(&cluster, &server, "other", &failing).await.is_err(), "a command passed");

    // A workload that says no fails its probe, and one that is gone fails all of them.
    let app = server.container("app")?;
    let own = format!("127.0.0.1:{PORT}");
    let order = ["/pod-workload", "get", &own, "/break"].map(str::to_owned);
    app.exec(&cluster.engine, &order).await?;
    fails(&cluster, &server, "livenessProbe", "500").await?;
    app.signal(&cluster.engine, "KILL").await?;
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        fails(&cluster, &server, kind, "502").await?;
    }
    ensure!(cluster.watch.report().await?.canary_hits() == 0, "the word was readable");
    Ok(())
}

async fn passes(cluster: &Cluster, of: &Played, container: &str, probe: &Value) -> Result<()> {
    let container = of.container(container)?;
    ask(&cluster.engine, &cluster.node, of.address(), &container, probe).await
}

async fn fails(cluster: &Cluster, of: &Played, kind: &str, status: &str) -> Result<()> {
    let probe = of.container("app")?.spec[kind].clone();
    let why = passes(cluster, of, "app", &probe).await.expect_err(kind).to_string();
    ensure!(why.contains(status), "{kind} fails otherwise: {why}");
    Ok(())
}
