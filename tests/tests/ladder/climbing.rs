//! A whole ladder, and one that is gone back, under traffic that never stops.
//!
//! Never: a request that is tried again.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, Workload, http};
use tokio::time::{Instant, sleep};

use crate::{LIFETIME, PORT, Running, acknowledged, generation, refused, rotate, status, trusts};

/// How long a bundle may take from the operator's command to a sidecar in a test; what is promised,
/// and printed here, is two seconds.
const DELIVERED_WITHIN: f64 = 10.0;

/// New connections, one after the other, until the story is at its end; every one must be served.
async fn under_traffic(
    from: &Pod,
    to: SocketAddr,
    story: impl Future<Output = Result<()>>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let requests = async {
        let mut served = 0;
        while !over.load(Ordering::Relaxed) {
            let page = http::request(from, to, "GET", "/page").await;
            let page = page.with_context(|| format!("request {served}"))?;
            ensure!(page.status == 200, "request {served}: {}", page.status);
            served += 1;
            sleep(Duration::from_millis(20)).await;
        }
        Ok(served)
    };
    let story = async {
        let told = story.await;
        over.store(true, Ordering::Relaxed);
        told
    };
    let (served, told) = tokio::join!(requests, story);
    told?;
    let served: usize = served?;
    ensure!(served > 50, "only {served} requests");
    println!("{served} requests, none failed");
    Ok(())
}

/// Makes a move and measures when each sidecar trusts what it brought.
async fn delivered(mesh: &Mesh, asked: &str, to: &[&Workload]) -> Result<()> {
    let begun = Instant::now();
    let moved = rotate(&mesh.ca, &[asked]).await?;
    let wanted = moved["ladder"]["generation"].as_f64().context("no generation")?;
    for sidecar in to {
        trusts(sidecar, wanted).await?;
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{asked}: at {} sidecars {took:.3} s after the command was typed", to.len());
    ensure!(took < DELIVERED_WITHIN, "{asked} took {took} s");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_replaced_under_traffic_and_what_ran_under_the_old_one_ends() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let both = [&server, &client];
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let pids = (client.pid(), server.pid(), mesh.ca.pid());
    let before = status(&mesh.ca).await?;
    let old = before["roots"][0]["sha256"].clone();

    let story = async {
        let mut of_old_root = Running::start(&client.pod, &listener).await?;
        delivered(&mesh, "prepare", &both).await?;
        acknowledged(&mesh.ca).await?;
        of_old_root.talk().await?;
        delivered(&mesh, "activate", &both).await?;
        // Nobody restarts, nobody hurries: each SVID is renewed when its time comes.
        acknowledged(&mesh.ca).await?;
        of_old_root.talk().await?;
        let mut of_new_root = Running::start(&client.pod, &listener).await?;
        delivered(&mesh, "retire", &both).await?;
        // T42: this one was authenticated under a root that nobody trusts any more.
        of_old_root.ends_cut().await?;
        sleep(Duration::from_secs(1)).await;
        of_new_root.talk().await
    };
    under_traffic(&client.pod, server.v4(80), story)
        .await
        .with_context(|| format!("{}\n{}", client.last_words(), server.last_words()))?;

    let after = status(&mesh.ca).await?;
    ensure!(after["rung"] == "settled" && after["number"] == 4, "{after}");
    ensure!(after["roots"].as_array().is_some_and(|roots| roots.len() == 1), "{after}");
    ensure!(after["roots"][0]["sha256"] != old, "{after}");
    ensure!((client.pid(), server.pid(), mesh.ca.pid()) == pids, "somebody was restarted");
    // A join token of now names the new root, and a newcomer needs no history.
    let newcomer = mesh.workload("newcomer").await?;
    Running::start(&newcomer.pod, &listener).await?.talk().await?;
    // A CA that starts again knows where it stands.
    mesh.ca.kill9();
    mesh.ca.up().await?;
    ensure!(status(&mesh.ca).await?["number"] == 4);
    mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_gone_back_from_either_rung_and_loses_nothing() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let both = [&server, &client];
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let old = status(&mesh.ca).await?["roots"][0]["sha256"].clone();
    let story = async {
        let mut all_the_while = Running::start(&client.pod, &listener).await?;
        delivered(&mesh, "prepare", &both).await?;
        let line = refused(&mesh.ca, &["retire"]).await?;
        ensure!(line.contains("cannot retire while the ladder is prepared"), "{line}");
        delivered(&mesh, "abort", &both).await?;
        ensure!(generation(&server).await? == 3.0);

        delivered(&mesh, "prepare", &both).await?;
        acknowledged(&mesh.ca).await?;
        rotate(&mesh.ca, &["activate"]).await?;
        acknowledged(&mesh.ca).await?;
        // Back to the first root: it issues again, and is what stays.
        let back = rotate(&mesh.ca, &["abort"]).await?;
        ensure!(back["ladder"]["roots"][0]["sha256"] == old, "{back}");
        acknowledged(&mesh.ca).await?;
        delivered(&mesh, "retire", &both).await?;
        let after = status(&mesh.ca).await?;
        ensure!(after["rung"] == "settled" && after["roots"][0]["sha256"] == old, "{after}");
        // It began under the root that stayed.
        all_the_while.talk().await
    };
    under_traffic(&client.pod, server.v4(80), story)
        .await
        .with_context(|| format!("{}\n{}", client.last_words(), server.last_words()))
}
