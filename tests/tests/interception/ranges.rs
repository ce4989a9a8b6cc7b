//! What counts as mesh: ranges, exceptions, the directory beyond both, and forged endpoints
//! (T57, T62).
//!
//! Never: a downgrade by an address.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::programs::{LIMIT, failure, output};
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, Spec, scenes};

use crate::{stage, stage_of};

/// T62: a sidecar whose own address lies outside the mesh would not be expected to speak mTLS.
#[tokio::test]
async fn own_address_outside_the_mesh_ranges_refuses_to_start() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let mut outside = Spec::new("outside");
    outside.mesh_cidrs = vec!["10.99.0.0/16".to_owned(), "fd77::/64".to_owned()];
    let outside = mesh.prepare(outside).await?;
    let said = failure(outside.sidecar_command()?, LIMIT).await?;
    ensure!(said.contains("10.77.0.") && said.contains("mesh_cidrs"), "it said {said:?}");
    let complaint = said.lines().filter(|line| line.starts_with("myelin-sidecar:")).count();
    ensure!(complaint == 1, "not one line: {said}");
    Ok(())
}

/// T62: the server lies outside the client's ranges; the directory knows it, so it is mTLS still.
#[tokio::test]
async fn meshed_peer_outside_the_ranges_is_still_mtls() -> Result<()> {
    let mut client = Spec::new("client");
    // The third pod of the mesh, and nobody else.
    client.mesh_cidrs = vec!["10.77.0.3/32".to_owned(), "fd77::3/128".to_owned()];
    let Some(stage) = stage_of(client, Spec::new("server")).await? else { return Ok(()) };
    stage.demand_page().await?;
    stage.client.outcome("outbound", "completed", 2.0).await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}

/// Inside the ranges, who is not known is refused; a named exception passes, counted by its name.
#[tokio::test]
async fn unmeshed_address_in_the_ranges_is_refused_unless_it_is_an_exception() -> Result<()> {
    let Some(mut stage) = stage().await? else { return Ok(()) };
    let outside = stage.mesh.pod("outside")?;
    let nginx = Nginx::start(&outside, stage.mesh.dir(), 8080).await?;
    nginx.page("page", b"plain")?;
    let at = std::net::SocketAddr::new(outside.v4(), 8080);
    let url = format!("http://{at}/page");
    failure(scenes::curl(&stage.client.pod, &["--max-time", "10"], &url)?, LIMIT).await?;
    stage.client.outcome("outbound", "unbound_address", 1.0).await?;
    ensure!(stage.mesh.watch.report().await?.non_tls_flows == 0, "plaintext left the client");
    stage.client.reload(|spec| {
        spec.tables = format!(
            "[[outbound.exception]]\nname = \"legacy\"\naddress = \"{}\"\nport = 8080\n",
            at.ip()
        );
    })?;
    let client = &stage.client;
    myelin_tests::programs::eventually("the exception holds", LIMIT, async || {
        let get = scenes::curl(&client.pod, &["--max-time", "10"], &url)?;
        Ok(output(get, LIMIT).await.is_ok_and(|said| said == "plain"))
    })
    .await?;
    let closed = "myelin_connections_closed_total";
    let counted = client.metrics().await?.sum(closed, &[("security", "exception")]);
    ensure!(counted >= 1.0, "the exception was not counted");
    stage.demand_page().await?;
    stage.mesh.watch.demand_clean_but(|server| server == at).await.map(drop)
}

/// T57: a forged endpoint leads to another valid workload, which is not among the service's IDs.
#[tokio::test]
async fn forged_endpoint_of_a_service_is_refused() -> Result<()> {
    let Some(mut stage) = stage().await? else { return Ok(()) };
    let mallory = stage.mesh.workload("mallory").await?;
    let nginx = Nginx::start(&mallory.pod, stage.mesh.dir(), 80).await?;
    nginx.page("page", b"mallory")?;
    let service = |endpoint: String| {
        format!(
            "[[outbound.service]]\nname = \"web\"\naddress = \"10.77.0.200\"\nport = 8000\n\
             endpoints = [\"{endpoint}\"]\nids = [\"spiffe://mesh.test/ns/test/sa/server\"]\n"
        )
    };
    let url = "http://10.77.0.200:8000/page";
    let honest = service(stage.server.v4(80).to_string());
    stage.client.reload(|spec| spec.tables = honest)?;
    let client = &stage.client;
    let canary = stage.mesh.canary();
    myelin_tests::programs::eventually("the service answers", LIMIT, async || {
        let get = scenes::curl(&client.pod, &["--max-time", "5"], url)?;
        Ok(output(get, LIMIT).await.is_ok_and(|said| said == canary))
    })
    .await?;
    let forged = service(mallory.v4(80).to_string());
    stage.client.reload(|spec| spec.tables = forged)?;
    let client = &stage.client;
    myelin_tests::programs::eventually("the forged endpoint is refused", LIMIT, async || {
        let get = scenes::curl(&client.pod, &["--max-time", "5"], url)?;
        let said = output(get, LIMIT).await;
        ensure!(said.as_ref().map_or(true, |said| said != "mallory"), "mallory answered");
        Ok(said.is_err() && client.metrics().await?.outcome("outbound", "wrong_peer") >= 1.0)
    })
    .await?;
    let reached = mallory.metrics().await?.outcome("inbound", "completed");
    ensure!(reached == 0.0, "mallory's workload was reached");
    stage.mesh.demand_clean_wire().await.map(drop)
}
