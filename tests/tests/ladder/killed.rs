//! The CA is killed while it moves the ladder, at moments spread over the whole of each move. It
//! starts again on the rung before or on the rung after, and the rotation is brought to its end.
//!
//! Never: a clean shutdown, or a store that is repaired by hand.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::{Mesh, Options};
use tokio::time::sleep;

use crate::{LIFETIME, PORT, Running, acknowledged, rotate, status, trusts};

/// From before the command has reached the CA until after its answer: a move takes some 20 ms.
const MOMENTS_MS: [u64; 5] = [0, 8, 16, 24, 40];

#[tokio::test]
async fn a_ca_that_is_killed_in_any_move_is_on_the_rung_before_or_after_and_goes_on() -> Result<()>
{
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let pids = (server.pid(), client.pid());
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let old = status(&mesh.ca).await?["roots"][0]["sha256"].clone();
    let (mut done, mut undone) = (0, 0);
    // Round after round: up to the top, so that every move is met by every moment.
    for moment in MOMENTS_MS {
        for (asked, rung) in
            [("prepare", "prepared"), ("activate", "activated"), ("retire", "settled")]
        {
            acknowledged(&mesh.ca).await?;
            let before = status(&mesh.ca).await?;
            let what = [asked];
            let killed = async {
                sleep(Duration::from_millis(moment)).await;
                mesh.ca.kill9();
            };
            let (asking, ()) = tokio::join!(rotate(&mesh.ca, &what), killed);
            mesh.ca.up().await?;
            let after = status(&mesh.ca).await?;
            let moved = after["number"].as_u64() == before["number"].as_u64().map(|n| n + 1);
            ensure!(moved || after["number"] == before["number"], "{before}\n{after}");
            ensure!(moved || asking.is_err(), "{asked} was said to be done, and is not: {after}");
            if moved {
                done += 1;
            } else {
                undone += 1;
                ensure!(after["rung"] == before["rung"], "{after}");
                acknowledged(&mesh.ca).await?;
                rotate(&mesh.ca, &[asked]).await?;
            }
            let reached = status(&mesh.ca).await?;
            ensure!(reached["rung"] == rung, "{reached}");
            let generation = reached["generation"].as_f64().context("no generation")?;
            trusts(&server, generation).await?;
            trusts(&client, generation).await?;
            Running::start(&client.pod, &listener).await?.talk().await?;
        }
    }
    println!("{done} moves were made although the CA was killed, {undone} were not");
    let after = status(&mesh.ca).await?;
    ensure!(after["roots"].as_array().is_some_and(|roots| roots.len() == 1), "{after}");
    ensure!(after["roots"][0]["sha256"] != old && after["ignored"].is_null(), "{after}");
    ensure!((server.pid(), client.pid()) == pids, "a sidecar was restarted");
    mesh.ca.kill9();
    mesh.ca.up().await
}
