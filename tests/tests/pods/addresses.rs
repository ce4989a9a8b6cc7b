//! Addresses that go from pod to pod, as a small range of a node's makes them do.
//!
//! Never: two pods at one address at a time.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::pods::{Cluster, Played};

use crate::{PORT, endpoint};

/// A Job's pod is still listed with its address when somebody else has it; a deleted one is not.
#[tokio::test]
async fn an_address_that_changes_hands_is_dialled_as_whoever_has_it_now() -> Result<()> {
    let Some(cluster) = Cluster::start().await? else { return Ok(()) };
    let serving = ["serve", &PORT.to_string()];
    let client = cluster.play(&cluster.pod("client", &serving)).await?;
    let own = endpoint(&client);
    // Its own address is one of the mesh, too.
    asks(&cluster, &client, &client).await?;
    let job = cluster.play(&cluster.pod("job", &["get", &own, "/word"])).await?;
    let at = job.address();
    let ended = cluster.complete(&job).await?;
    ensure!(ended.codes()["app"] == 0, "{}", job.container("app")?.last_words());
    for name in ["first", "second"] {
        let server = cluster.play(&cluster.pod(name, &serving)).await?;
        ensure!(server.address() == at, "{name} is at {}, expected {at}", server.address());
        asks(&cluster, &client, &server).await?;
        let metrics = cluster.metrics(&server).await?;
        ensure!(metrics.outcome("inbound", "completed") >= 1.0, "{:?}", metrics.outcomes());
        cluster.delete(&server).await?;
    }
    cluster.demand_clean_wire().await.map(drop)
}

async fn asks(cluster: &Cluster, client: &Played, server: &Played) -> Result<()> {
    let question = ["/pod-workload", "get", &endpoint(server), "/word"].map(str::to_owned);
    client.container("app")?.exec(&cluster.engine, &question).await.map(drop)
}
