//! The end of pods: a Job that finishes, a request that is open when its server is told to end, a
//! rolling restart under load, a client that has something to say when it leaves.
//!
//! Never: a pod that ends by SIGKILL where it is not the question.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::pods::{Cluster, Played};
use serde_json::{Value, json};

use crate::{PORT, endpoint};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_finishes_and_fails_by_its_own_containers_alone() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    let server = cluster.play(&cluster.pod("server", &["serve", &PORT.to_string()])).await?;
    let job = cluster.pod("job", &["get", &endpoint(&server), "/word"]);
    let job = cluster.play(&job).await?;
    let ended = cluster.complete(&job).await?;
    let expected = [("app", 0), ("myelin-sidecar", 0)];
    ensure!(ended.is(&expected), "{ended:?}: {}", job.container("app")?.last_words());
    let failing = cluster.pod("failing", &["get", &endpoint(&server), "/nowhere"]);
    let ended = cluster.complete(&cluster.play(&failing).await?).await?;
    ensure!(ended.is(&[("app", 1), ("myelin-sidecar", 0)]), "{ended:?}");
    cluster.demand_clean_wire().await.map(drop)
}

/// The server answers once it has been told to end, and has ended when its client, a slow reader, still
/// has megabytes before it: they are with the sidecars, of which the server's is told to end by then.
#[tokio::test]
async fn an_answer_that_is_on_its_way_when_its_server_has_ended_arrives_whole() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    // The twin gives its sidecar no time to drain.
    for (name, drain, code) in [("patient", "60s", 0), ("hasty", "0s", 1)] {
        let mut server = cluster.pod(name, &["serve", &PORT.to_string()]);
        server["metadata"]["annotations"] = json!({ "myelin.dev/drain-timeout": drain });
        server["spec"]["terminationGracePeriodSeconds"] = json!(90);
        let server = cluster.play(&server).await?;
        let client = cluster.pod(&format!("of-{name}"), &["get", &endpoint(&server), "/last"]);
        let client = cluster.play(&client).await?;
        server.container("app")?.says("a last request is open", LIMIT).await?;
        let ended = cluster.delete(&server).await?;
        ensure!(ended.is(&[("app", 0), ("myelin-sidecar", 0)]), "{ended:?}");
        let ended = cluster.complete(&client).await?;
        let words = client.container("app")?.last_words();
        ensure!(ended.is(&[("app", code), ("myelin-sidecar", 0)]), "{ended:?}: {words}");
    }
    cluster.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_request() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    let mut servers = vec![server(&cluster, "web-1").await?, server(&cluster, "web-2").await?];
    let client = load(&cluster, "client", &servers).await?;
    for number in [3, 4] {
        asked(&client, 20).await?;
        servers.push(server(&cluster, &format!("web-{number}")).await?);
        let old = servers.remove(0);
        // Whoever lists the endpoints and whoever ends the pod hear of it at the same moment.
        list(&client, &servers)?;
        let ended = cluster.delete(&old).await?;
        ensure!(ended.is(&[("app", 0), ("myelin-sidecar", 0)]), "{ended:?}");
        asked(&client, 20).await?;
    }
    // The client makes its last call after it was told to end.
    let ended = cluster.delete(&client).await?;
    let words = client.container("app")?.last_words();
    ensure!(ended.is(&[("app", 0), ("myelin-sidecar", 0)]), "{ended:?}: {words}");
    ensure!(words.contains("requests, 0 failed"), "{words}");
    cluster.demand_clean_wire().await?;

    // The twin: with its sidecar gone before it, the same client fails, and nothing leaves in the clear.
    let client = load(&cluster, "widow", &servers).await?;
    asked(&client, 20).await?;
    let sidecar = client.container("myelin-sidecar")?;
    sidecar.signal(&cluster.engine, "TERM").await?;
    ensure!(sidecar.ended(&cluster.engine, LIMIT).await? == 0, "{}", sidecar.last_words());
    let app = client.container("app")?;
    app.says("load: failed", LIMIT).await?;
    let ended = cluster.delete(&client).await?;
    ensure!(ended.codes()["app"] == 1, "{ended:?}: {}", app.last_words());
    cluster.demand_clean_wire().await.map(drop)
}

/// As a Deployment's author writes it: ready when it serves, and at the end a moment in which the
/// others hear of it.
async fn server(cluster: &Cluster, name: &str) -> Result<Played> {
    let mut pod = cluster.pod(name, &["serve", &PORT.to_string()]);
    pod["spec"]["serviceAccountName"] = json!("web");
    let app = &mut pod["spec"]["containers"][0];
    app["readinessProbe"] = json!({ "httpGet": { "path": "/ready", "port": PORT } });
    app["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 1 } } });
    cluster.play(&pod).await
}

/// A client that asks these servers without a pause.
async fn load(cluster: &Cluster, name: &str, servers: &[Played]) -> Result<Played> {
    let mut pod = cluster.pod(name, &["load", "/endpoints/list", "4"]);
    let spec = &mut pod["spec"];
    push(&mut spec["volumes"], json!({ "name": "endpoints", "emptyDir": {} }));
    let mount = json!({ "name": "endpoints", "mountPath": "/endpoints", "readOnly": true });
    push(&mut spec["containers"][0]["volumeMounts"], mount);
    let client = cluster.sandbox(&cluster.admit(&pod).await?)?;
    list(&client, servers)?;
    cluster.run_pod(&client).await?;
    Ok(client)
}

/// Says who serves; a reader sees the old list or the new one.
fn list(client: &Played, servers: &[Played]) -> Result<()> {
    let servers: Vec<String> = servers.iter().map(endpoint).collect();
    client.write("endpoints", "list", &servers.join("\n"))
}

/// Waits for so many more requests.
async fn asked(client: &Played, more: usize) -> Result<()> {
    let app = client.container("app")?;
    let said = app.log().lines().filter(|line| line.contains(" requests")).count();
    // It says so for every ten.
    let enough = format!("load: {} requests", (said + more / 10) * 10);
    app.says(&enough, LIMIT).await
}

fn push(list: &mut Value, entry: Value) {
    list.as_array_mut().unwrap().push(entry);
}
