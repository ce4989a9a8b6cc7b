//! How many handshakes many connections cost, and where the connections come from.
//!
//! Never: a bound that one lucky run decides; each has its reason beside it.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::{Mesh, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{PORT, ask, ask_on, handshakes, idle, retired, stage, uses};

const MANY: u32 = 200;

/// Two workers with a pool each, two endpoints (IPv4 and IPv6): for each of these four, one connection
/// is in use, one or two settle and two are ready. Without a pool it would be 200.
const FEW: f64 = 20.0;

#[tokio::test]
async fn many_connections_one_after_the_other_share_few_handshakes() -> Result<()> {
    let Some(stage) = stage("", "").await? else { return Ok(()) };
    for to in [stage.server.v4(PORT), stage.server.v6(PORT)] {
        for round in 0..MANY / 2 {
            let words = format!("{round} {}", stage.mesh.canary());
            ask(&stage.client.pod, to, &words).await?;
        }
    }
    stage.client.outcome("outbound", "completed", f64::from(MANY)).await?;
    stage.server.outcome("inbound", "completed", f64::from(MANY)).await?;
    let made = handshakes(&stage.client, "outbound").await?;
    ensure!((1.0..=FEW).contains(&made), "{made} handshakes for {MANY} connections");
    let (recycled, ready) =
        (uses(&stage.client, "recycled").await?, uses(&stage.client, "ready").await?);
    let new = uses(&stage.client, "new").await?;
    ensure!(recycled + ready + new == f64::from(MANY), "{recycled} + {ready} + {new}");
    ensure!(recycled >= f64::from(MANY) - FEW, "{recycled} of {MANY} on recycled connections");
    // What lies idle is nobody's use, on either side.
    let sides = [(&stage.client, "outbound", "mesh"), (&stage.server, "inbound", "allowed")];
    for (workload, direction, verdict) in sides {
        let closed = [("direction", direction), ("outcome", "completed")];
        let metrics = workload.metrics().await?;
        ensure!(metrics.sum("myelin_connections_closed_total", &closed) == f64::from(MANY));
        let verdicts = [("direction", direction), ("verdict", verdict)];
        ensure!(metrics.sum("myelin_policy_verdicts_total", &verdicts) == f64::from(MANY));
    }
    stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn with_one_use_a_connection_each_use_has_its_own_handshake() -> Result<()> {
    let single = "[[outbound.peer]]\naddress = \"SERVER\"\nmax_uses = 1\n\
                  id = \"spiffe://mesh.test/ns/test/sa/server\"\n";
    let Some(stage) = stage(single, "").await? else { return Ok(()) };
    for round in 0..30 {
        ask(&stage.client.pod, stage.server.v4(PORT), &format!("use {round}")).await?;
    }
    stage.client.outcome("outbound", "completed", 30.0).await?;
    ensure!(handshakes(&stage.client, "outbound").await? == 30.0);
    ensure!(handshakes(&stage.server, "inbound").await? == 30.0);
    ensure!(uses(&stage.client, "new").await? == 30.0);
    ensure!(retired(&stage.client, "uses").await? == 30.0);
    Ok(())
}

/// A bound of ten uses: a fresh handshake at least every tenth use, and no use suffers by it.
#[tokio::test]
async fn a_connection_is_replaced_when_its_uses_are_spent() -> Result<()> {
    let Some(stage) = stage("", "max_uses = 10").await? else { return Ok(()) };
    for round in 0..100 {
        ask(&stage.client.pod, stage.server.v4(PORT), &format!("use {round}")).await?;
    }
    let made = handshakes(&stage.client, "outbound").await?;
    ensure!(made >= 10.0, "{made} handshakes for 100 uses of at most ten a connection");
    ensure!(made <= 50.0, "{made} handshakes for 100 uses");
    ensure!(retired(&stage.client, "uses").await? >= 5.0);
    Ok(())
}

/// Whoever dials often finds a connection ready beside the one that is in use.
#[tokio::test]
async fn a_hot_peer_has_connections_ready_before_they_are_needed() -> Result<()> {
    let Some(stage) = stage("", "").await? else { return Ok(()) };
    let to = stage.server.v4(PORT);
    // Enough for both workers to see a habit, whichever accepts how many.
    for round in 0..12 {
        ask(&stage.client.pod, to, &format!("habit {round}")).await?;
    }
    idle(&stage.client, 2.0).await?;
    let mut held = Vec::new();
    for _ in 0..16 {
        let mut stream = stage.client.pod.tcp_connect(to).await?;
        stream.write_all(b"x").await?;
        stream.read_exact(&mut [0; 1]).await?;
        // Time for the one that is made instead of the one that was taken.
        idle(&stage.client, 1.0).await?;
        held.push(stream);
    }
    ensure!(uses(&stage.client, "ready").await? >= 1.0, "no use found a connection ready");
    drop(held);
    Ok(())
}

/// The acceptor's workload speaks first; nothing waits for the client's bytes.
#[tokio::test]
async fn a_server_that_speaks_first_does_so_on_recycled_connections() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"220 ready\n").await?;
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await?;
                stream.write_all(&heard).await
            });
        }
    });
    for round in 0..40 {
        let mut stream = client.pod.tcp_connect(server.v4(PORT)).await?;
        let mut banner = [0; 10];
        stream.read_exact(&mut banner).await?;
        ensure!(&banner == b"220 ready\n", "round {round}: {banner:?}");
        ask_on(&mut stream, &format!("hello {round}")).await?;
    }
    ensure!(uses(&client, "recycled").await? >= 20.0, "hardly any connection was recycled");
    Ok(())
}
