//! T48: for half a minute the network swallows everything between two peers: every new connection
//! ends in bounded time with one word, a running one outlives it, and no stampede comes after it.
//!
//! Never: a peer that is down; it hears its CA and would answer.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use myelin_lab::Pod;
use myelin_tests::Workload;
use myelin_tests::hole::Hole;
use myelin_tests::running::{Running, ask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::stage;

const PORT: u16 = 7_000;
const BLACK_HOLE: Duration = Duration::from_secs(30);

/// Connections that workloads try at once, again and again while the hole is there.
const AT_ONCE: usize = 4;

/// A dial ends after `limits.connect_timeout`, 5 s. A use of a connection that was there already waits
/// for its answer as long as a dial and a handshake may take, 15 s.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// SYNs of one attempt: the kernel sends one a second of the 5 (`tcp_syn_linear_timeouts` of Linux 6.5 and
/// later; before that one at 0, 1 and 3 s).
const MOST_SYNS_EACH: u64 = 5;
/// Those of the attempts ahead of need: they pause 1, 2, 4, 8 and 16 s between failures, two at a time.
const MOST_SYNS_AHEAD: u64 = 2 * 6 * MOST_SYNS_EACH;

/// After the hole: the use itself, two ready ones, and what was on its way.
const MOST_HANDSHAKES_AFTER_IT: f64 = 6.0;

#[tokio::test]
async fn black_hole_towards_a_peer_ends_new_uses_with_one_word_and_no_stampede() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (client, server, mesh) = (&stage.client, &stage.server, &stage.mesh);
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let mut running = Running::start(&client.pod, &listener).await?;
    // A destination that is hot, so that connections are made ahead of need.
    for _ in 0..4 {
        ask(&client.pod, &listener).await?;
    }

    let hole = Hole::dig(&server.pod, client.addresses(), mesh.dir()).await?;
    let began = Instant::now();
    running.at_client.write_all(b"into the hole").await?;
    let mut attempts = 0_u32;
    while began.elapsed() < BLACK_HOLE {
        let to = server.v4(PORT);
        for ended in join_all((0..AT_ONCE).map(|_| ends(&client.pod, to))).await {
            ended.context("a use in the hole")?;
            attempts += 1;
        }
    }
    let ended = client.metrics().await?;
    let words = ["upstream_timeout", "peer_silent", "handshake_timeout"];
    let timely: f64 = words.iter().map(|word| ended.outcome("outbound", word)).sum();
    ensure!(timely >= f64::from(attempts), "{attempts} attempts, but {:?}", ended.outcomes());
    let tried = hole.tried().await?;
    let most = u64::from(attempts) * MOST_SYNS_EACH + MOST_SYNS_AHEAD;
    ensure!(tried <= most, "{tried} SYNs for {attempts} attempts");

    let before = handshakes(client).await?;
    hole.fill().await?;
    sleep(Duration::from_millis(500)).await;
    ask(&client.pod, &listener).await.context("the first use after the hole")?;
    // What was written into the hole arrives: the use that ran was not given up.
    let mut heard = [0; 13];
    timeout(Duration::from_secs(60), running.at_server.read_exact(&mut heard))
        .await
        .context("stuck")??;
    ensure!(&heard == b"into the hole");
    let made = handshakes(client).await? - before;
    ensure!(made <= MOST_HANDSHAKES_AFTER_IT, "{made} handshakes after the hole");
    running.ends_well().await?;
    mesh.demand_clean_wire().await.map(drop)
}

async fn handshakes(of: &Workload) -> Result<f64> {
    Ok(of.metrics().await?.sum("myelin_handshakes_total", &[("direction", "outbound")]))
}

/// A use that gets no answer ends, and not as if it were whole.
async fn ends(from: &Pod, to: std::net::SocketAddr) -> Result<()> {
    let mut stream = from.tcp_connect(to).await?;
    stream.write_all(b"anybody?").await?;
    let said = timeout(ENDS_WITHIN, stream.read(&mut [0; 1])).await.context("it never ends")?;
    ensure!(said.is_err(), "it ended as if whole: {said:?}");
    Ok(())
}
