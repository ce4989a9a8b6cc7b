//! Acceptors that leave, die and come back, under clients that connect without a pause.
//!
//! Never: a use that is tried again by the client.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::{Mesh, Options, Spec, Workload};
use nix::sys::signal::Signal;

use crate::{Echo, PORT, SOON, ask, idle, retired, stage, until, uses};

/// Ends as an orchestrator asks it to, and comes back.
async fn restart(workload: &Workload) -> Result<()> {
    let process = workload.take().context("it runs")?;
    process.signal(Signal::SIGTERM);
    process.wait_success(4 * SOON).await?;
    workload.run().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_the_acceptors_fails_no_connection() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let path = "/ns/test/sa/server";
    let one = mesh.workload_of(Spec::new("one").path(path)).await?;
    let two = mesh.workload_of(Spec::new("two").path(path)).await?;
    let _echoes = [Echo::start(&one, PORT).await?, Echo::start(&two, PORT).await?];
    let service = format!(
        "[[outbound.service]]\nname = \"both\"\naddress = \"10.77.0.200\"\nport = {PORT}\n\
         endpoints = [\"{}\", \"{}\"]\nids = [\"spiffe://mesh.test{path}\"]\n",
        one.v4(PORT),
        two.v4(PORT),
    );
    let client = Arc::new(mesh.workload_of(Spec::new("client").tables(&service)).await?);
    let over = Arc::new(AtomicBool::new(false));
    let loops = (0..3).map(|number| {
        let (client, over) = (Arc::clone(&client), Arc::clone(&over));
        tokio::spawn(async move {
            let mut asked = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let words = format!("client {number}, connection {asked}");
                let to = std::net::SocketAddr::from(([10, 77, 0, 200], PORT));
                ask(&client.pod, to, &words).await.context(words)?;
                asked += 1;
            }
            anyhow::Ok(asked)
        })
    });
    let loops: Vec<_> = loops.collect();
    idle(&client, 2.0).await?;
    for _ in 0..2 {
        restart(&one).await?;
        restart(&two).await?;
    }
    over.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for each in loops {
        asked += each.await?.with_context(|| client.last_words())?;
    }
    let recycled = uses(&client, "recycled").await?;
    // Otherwise nothing was warm when the acceptors went, and nothing was tried.
    ensure!(recycled >= 20.0, "{recycled} of {asked} on recycled connections");
    Ok(())
}

/// A robbed or crashed machine says nothing: its warm connections are found dead, and are no
/// reason for the next use to fail once it is back.
#[tokio::test]
async fn a_killed_acceptor_leaves_no_dead_connection_behind() -> Result<()> {
    let Some(stage) = stage("", "").await? else { return Ok(()) };
    let to = stage.server.v4(PORT);
    for round in 0..3 {
        for each in 0..10 {
            ask(&stage.client.pod, to, &format!("{round}.{each}")).await?;
        }
        idle(&stage.client, 2.0).await?;
        let before = retired(&stage.client, "peer").await?;
        stage.server.kill9();
        stage.server.run().await?;
        ask(&stage.client.pod, to, "are you back?").await.context("after the kill")?;
        let after = retired(&stage.client, "peer").await?;
        ensure!(after > before, "the dead connections are still there");
    }
    Ok(())
}

/// A dialer that leaves parts with its idle connections in good order, and at once.
#[tokio::test]
async fn a_dialer_that_leaves_parts_with_its_idle_connections() -> Result<()> {
    let Some(stage) = stage("", "").await? else { return Ok(()) };
    for each in 0..10 {
        ask(&stage.client.pod, stage.server.v4(PORT), &format!("{each}")).await?;
    }
    idle(&stage.client, 2.0).await?;
    let process = stage.client.take().context("it runs")?;
    process.signal(Signal::SIGTERM);
    process.wait_success(SOON).await?;
    until(&stage.server, "myelin_connections_open", |open| open == 0.0).await?;
    let metrics = stage.server.metrics().await?;
    for word in ["peer_vanished", "peer_violation", "abandoned", "peer_silent"] {
        ensure!(metrics.outcome("inbound", word) == 0.0, "{word}: {:?}", metrics.outcomes());
    }
    Ok(())
}

/// What nobody uses any more is given up.
#[tokio::test]
async fn idle_connections_age_out() -> Result<()> {
    let limits = "idle_timeout = \"4s\"";
    let Some(stage) = stage("", limits).await? else { return Ok(()) };
    for each in 0..5 {
        ask(&stage.client.pod, stage.server.v4(PORT), &format!("{each}")).await?;
    }
    idle(&stage.client, 1.0).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    until(&stage.client, "myelin_mesh_connections_idle", |seen| seen == 0.0).await?;
    ensure!(retired(&stage.client, "idle").await? >= 1.0);
    Ok(())
}
