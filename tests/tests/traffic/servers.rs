//! Each kind of server, over both families.
//!
//! Never: a scene of its own; they are in the harness, so that the control plays the same ones.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::programs::{LIMIT, failure};
use myelin_tests::scenes;
use myelin_tests::servers::Nginx;

use crate::{Stage, stage};

/// What every scene ends with: a clean wire, and connections that were counted as completed.
async fn demand_clean(stage: &Stage) -> Result<()> {
    let report = stage.mesh.demand_clean_wire().await?;
    ensure!(report.groups.keys().all(|group| group == "X25519MLKEM768"), "{:?}", report.groups);
    // One over each family at least; the last one may still be settling.
    stage.server.ended("inbound", "mesh", 2.0).await
}

#[tokio::test]
async fn http_through_the_mesh_is_unreadable() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server) = (&stage.client.pod, &stage.server.pod);
    scenes::http(client, server, stage.mesh.dir(), stage.mesh.canary()).await?;
    demand_clean(&stage).await
}

#[tokio::test]
async fn postgres_through_the_mesh_is_unreadable() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server) = (&stage.client.pod, &stage.server.pod);
    scenes::postgres(client, server, stage.mesh.dir(), stage.mesh.canary()).await?;
    demand_clean(&stage).await
}

#[tokio::test]
async fn mariadb_through_the_mesh_is_unreadable() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server) = (&stage.client.pod, &stage.server.pod);
    scenes::mariadb(client, server, stage.mesh.dir(), stage.mesh.canary()).await?;
    demand_clean(&stage).await
}

#[tokio::test]
async fn redis_through_the_mesh_is_unreadable() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server) = (&stage.client.pod, &stage.server.pod);
    scenes::redis(client, server, stage.mesh.dir(), stage.mesh.canary()).await?;
    demand_clean(&stage).await
}

#[tokio::test]
async fn smtp_through_the_mesh_is_unreadable() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server) = (&stage.client.pod, &stage.server.pod);
    scenes::smtp(client, server, stage.mesh.canary()).await?;
    demand_clean(&stage).await
}

#[tokio::test]
async fn iperf_through_the_mesh_is_unreadable() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server) = (&stage.client.pod, &stage.server.pod);
    scenes::iperf(client, server, stage.mesh.canary()).await?;
    demand_clean(&stage).await
}

/// The refuse twin of all of them: who has no sidecar gets nothing, over neither family.
#[tokio::test]
async fn plaintext_client_is_refused() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let nginx = Nginx::start(&stage.server.pod, stage.mesh.dir(), 80).await?;
    nginx.page("page", stage.mesh.canary().as_bytes())?;
    let outsider = stage.mesh.pod("outsider")?;
    for address in [stage.server.v4(80), stage.server.v6(80)] {
        let said = failure(scenes::curl(&outsider, &[], &format!("http://{address}/page"))?, LIMIT)
            .await?;
        ensure!(!said.contains(stage.mesh.canary()), "the workload answered: {said}");
    }
    stage.server.outcome("inbound", "plaintext_refused", 2.0).await?;
    let report = stage.mesh.watch.report().await?;
    ensure!(report.canary_hits() == 0, "the workload's words crossed the wire: {report:?}");
    Ok(())
}
