//! The control of the traffic suite: the same scenes without a mesh, where the capture must find
//! what the workloads say. Without this, "no canary was found" would mean nothing.
//!
//! Never: a sidecar.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use anyhow::{Result, ensure};
use myelin_lab::Pod;
use myelin_tests::mesh::Bare;
use myelin_tests::scenes;

fn stage() -> Result<Option<(Bare, Pod, Pod)>> {
    let Some(bare) = Bare::start()? else { return Ok(None) };
    let (client, server) = (bare.pod("client")?, bare.pod("server")?);
    Ok(Some((bare, client, server)))
}

async fn demand_readable(bare: &Bare) -> Result<()> {
    let report = bare.watch.report().await?;
    ensure!(
        report.canary_hits() >= 2,
        "the canary was not readable over both families: {report:?}"
    );
    ensure!(report.non_tls_flows > 0, "no plaintext was seen: {report:?}");
    Ok(())
}

#[tokio::test]
async fn http_without_a_mesh_is_readable() -> Result<()> {
    let Some((bare, client, server)) = stage()? else { return Ok(()) };
    scenes::http(&client, &server, bare.dir(), bare.watch.canary()).await?;
    demand_readable(&bare).await
}

#[tokio::test]
async fn postgres_without_a_mesh_is_readable() -> Result<()> {
    let Some((bare, client, server)) = stage()? else { return Ok(()) };
    scenes::postgres(&client, &server, bare.dir(), bare.watch.canary()).await?;
    demand_readable(&bare).await
}

#[tokio::test]
async fn mariadb_without_a_mesh_is_readable() -> Result<()> {
    let Some((bare, client, server)) = stage()? else { return Ok(()) };
    scenes::mariadb(&client, &server, bare.dir(), bare.watch.canary()).await?;
    demand_readable(&bare).await
}

#[tokio::test]
async fn redis_without_a_mesh_is_readable() -> Result<()> {
    let Some((bare, client, server)) = stage()? else { return Ok(()) };
    scenes::redis(&client, &server, bare.dir(), bare.watch.canary()).await?;
    demand_readable(&bare).await
}

#[tokio::test]
async fn smtp_without_a_mesh_is_readable() -> Result<()> {
    let Some((bare, client, server)) = stage()? else { return Ok(()) };
    scenes::smtp(&client, &server, bare.watch.canary()).await?;
    demand_readable(&bare).await
}

#[tokio::test]
async fn iperf_without_a_mesh_is_readable() -> Result<()> {
    let Some((bare, client, server)) = stage()? else { return Ok(()) };
    scenes::iperf(&client, &server, bare.watch.canary()).await?;
    demand_readable(&bare).await
}
