//! The root is replaced across replicas: a step that one makes is known to the other at once, and one
//! that died does not hold the ladder up for longer than an SVID lives. It follows when it is back.
//!
//! Never: a move at the replica that is dead.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::ca::Ca;
use myelin_tests::programs::eventually;
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, http};
use serde_json::Value;
use tokio::time::Instant;

use crate::{Replicas, served_through_renewals};

/// Three lives of the SVIDs of this suite.
const SOME_LIVES: Duration = Duration::from_secs(60);

async fn rotate(ca: &Ca, what: &str) -> Result<Value> {
    let said = ca.operate(&["rotate", what, "--json"]).await?;
    serde_json::from_str(&said).with_context(|| said)
}

async fn record(ca: &Ca) -> Result<f64> {
    Ok(ca.metrics().await?.sum("myelin_ca_trust_record", &[]))
}

async fn acknowledged(ca: &Ca) -> Result<()> {
    eventually("everybody has acknowledged", SOME_LIVES, async || {
        let seen = rotate(ca, "status").await?;
        ensure!(seen["outstanding"] == 0, "{seen}");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_replica_that_died_holds_up_a_retirement_for_one_life_and_follows_later() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let replicas = Replicas::start(&mesh).await?;
    let server = replicas.workload(&mesh, "server").await?;
    let client = replicas.workload(&mesh, "client").await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    http::request(&client.pod, server.v4(80), "GET", "/page").await?;
    let (first, second) = (&replicas.first, &replicas.second);

    let begun = Instant::now();
    rotate(first, "prepare").await?;
    eventually("the other replica has followed", SOME_LIVES, async || {
        Ok(record(second).await? == 2.0)
    })
    .await?;
    println!("the other replica knew after {:.3} s", begun.elapsed().as_secs_f64());
    acknowledged(first).await?;
    second.kill9();
    rotate(first, "activate").await?;
    acknowledged(first).await?;
    let line = first.refuse(&["rotate", "retire"]).await?;
    ensure!(line.contains("retire would strand 1: ca-replica/"), "{line}");
    eventually("the dead one counts no more", SOME_LIVES, async || {
        rotate(first, "retire").await.map(|_| true)
    })
    .await?;

    // It comes back with the pin of then and an intermediate of a root that is gone.
    second.up().await?;
    ensure!(record(second).await? == 4.0, "{}", second.last_words());
    first.kill9();
    served_through_renewals(&client, &server).await?;
    let page = http::request(&client.pod, server.v4(80), "GET", "/page").await?;
    ensure!(page.status == 200 && rotate(second, "status").await?["rung"] == "settled");
    Ok(())
}
