//! T41: the CA is down for nine tenths of a life, then past expiry, then back.
//!
//! Never: a sidecar that is restarted.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::programs::{LIMIT, eventually};
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, http};
use tokio::time::sleep;

use crate::{gauge, now, serial};

const LIFETIME: u64 = 20;
const NOT_AFTER: &str = "myelin_svid_not_after_seconds";

#[tokio::test]
async fn outage_of_the_ca_is_served_through_then_fails_closed_and_heals_alone() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let get = async || http::request(&client.pod, server.v4(80), "GET", "/page").await;
    ensure!(get().await?.status == 200, "the mesh does not work to begin with");
    let (pids, before) = ((client.pid(), server.pid()), serial(&client).await?);

    mesh.ca.kill9();
    // Fail static: until a second before the first of the two expires, every request is served.
    let (one, other) = (gauge(&client, NOT_AFTER).await?, gauge(&server, NOT_AFTER).await?);
    let mut served = 0;
    while now() < one.min(other) - 1.0 {
        ensure!(get().await?.status == 200, "a request failed while both SVIDs were valid");
        served += 1;
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(served > 10, "only {served} requests: the outage began too late");
    ensure!(serial(&client).await? == before, "somebody renewed without a CA");

    // Fail closed: refused, unready, and the word says why.
    eventually("both are unready", LIMIT, async || {
        Ok(!client.is_ready().await? && !server.is_ready().await?)
    })
    .await?;
    ensure!(get().await.is_err(), "a request was served with an expired SVID");
    client.outcome("outbound", "identity_expired", 1.0).await?;
    let ready = client.ops("/ready").await?.body;
    ensure!(ready.contains("identity_expired"), "{ready}");

    // And back, without a restart.
    mesh.ca.up().await?;
    client.ready().await?;
    server.ready().await?;
    eventually("requests are served again", LIMIT, async || {
        Ok(get().await.is_ok_and(|page| page.status == 200))
    })
    .await?;
    ensure!((client.pid(), server.pid()) == pids, "a sidecar was restarted");
    ensure!(serial(&client).await? != before, "the SVID is still the old one");
    mesh.demand_clean_wire().await.map(drop)
}
