//! What is bounded: memory under backpressure (T26), file descriptors (T29), slow and silent
//! connections (T25).
//!
//! Never: a judgement about speed; only about ends and bounds.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use myelin_tests::programs::{LIMIT, eventually, output};
use myelin_tests::servers::Nginx;
use myelin_tests::{Spec, Workload, scenes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{stage, stage_of};

const MIB: f64 = 1024.0 * 1024.0;

/// As many slow clients as T25 names.
const SLOW: usize = 1000;

/// Between two bytes of a slow client.
const TRICKLE: Duration = Duration::from_millis(200);

/// Socket buffers are the kernel's; the process itself may grow by less than this.
const FLAT: f64 = 16.0 * MIB;

async fn resident(workload: &Workload) -> Result<f64> {
    Ok(workload.metrics().await?.sum("process_resident_memory_bytes", &[]))
}

/// T26: a workload that does not read stops the sender, and nobody stores what it would say.
#[tokio::test]
async fn stalled_workload_stops_the_sender_and_memory_stays_flat() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let to = stage.server.v4(7000);
    let listener = stage.server.pod.tcp_listen(to).await?;
    let mut sender = stage.client.pod.tcp_connect(to).await?;
    let (mut stalled, _) = listener.accept().await?;
    let before = (resident(&stage.client).await?, resident(&stage.server).await?);
    let chunk = vec![b'x'; 1 << 20];
    let mut sent: u64 = 0;
    // The sender is stopped when one write makes no progress for a whole second.
    while let Ok(wrote) = tokio::time::timeout(Duration::from_secs(1), sender.write(&chunk)).await {
        sent += wrote? as u64;
        ensure!(sent < 1 << 30, "a gibibyte went towards a workload that does not read");
    }
    let after = (resident(&stage.client).await?, resident(&stage.server).await?);
    ensure!(after.0 - before.0 < FLAT, "outbound grew from {} to {}", before.0, after.0);
    ensure!(after.1 - before.1 < FLAT, "inbound grew from {} to {}", before.1, after.1);
    // Its twin: once the workload reads, every byte arrives.
    sender.shutdown().await?;
    let mut arrived: u64 = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stalled.read(&mut buffer).await? {
            0 => break,
            read => arrived += read as u64,
        }
    }
    ensure!(arrived == sent, "{sent} bytes were sent and {arrived} arrived");
    Ok(())
}

/// T29: with 256 descriptors and 1,000 connections the sidecar refuses, does not spin, and takes
/// connections again within 5 s of their end.
#[tokio::test]
async fn sidecar_without_descriptors_refuses_and_accepts_again() -> Result<()> {
    let server = Spec { descriptors: Some(256), ..Spec::new("server") };
    let Some(stage) = stage_of(Spec::new("client"), server).await? else { return Ok(()) };
    let nginx = Nginx::start(&stage.server.pod, stage.mesh.dir(), 80).await?;
    nginx.page("page", b"here")?;
    let outsider = stage.mesh.pod("outsider")?;
    let (mut flood, mut refused) = (Vec::new(), 0);
    for _ in 0..1000 {
        let connect = outsider.tcp_connect(stage.server.v4(80));
        match tokio::time::timeout(Duration::from_secs(2), connect).await {
            Ok(Ok(stream)) => flood.push(stream),
            // The reset of a full house may overtake the end of connect.
            Ok(Err(_)) => refused += 1,
            Err(_) => bail!("a connection hung instead of being refused"),
        }
    }
    // What the sidecar can afford was taken, and the rest was told so rather than left to hang.
    ensure!(flood.len() >= 60, "only {} were let in, {refused} were not", flood.len());
    stage.server.outcome("inbound", "overloaded", 700.0).await?;
    ensure!(stage.server.is_running(), "the sidecar ended: {}", stage.server.last_words());
    demand_no_spin(&stage.server).await?;
    drop(flood);
    let url = format!("http://{}/page", stage.server.v4(80));
    eventually("the sidecar accepts again", Duration::from_secs(5), async || {
        let get = scenes::curl(&stage.client.pod, &["--max-time", "2"], &url)?;
        Ok(output(get, LIMIT).await.is_ok_and(|said| said == "here"))
    })
    .await
}

/// Over a second, a starved process that waits takes almost no CPU; one that spins takes all of it.
async fn demand_no_spin(workload: &Workload) -> Result<()> {
    let pid = workload.pid().expect("the sidecar runs");
    let ticks = || -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let before = ticks()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = ticks()? - before;
    ensure!(used < 100, "{used} ticks of CPU in two seconds without descriptors");
    Ok(())
}

/// T25: silent and slow clients are closed at their deadline, while a healthy one is always served.
#[tokio::test]
async fn silent_and_slow_handshakes_end_at_their_deadline() -> Result<()> {
    let server = Spec::new("server").limits("handshake_timeout = \"2s\"");
    let Some(stage) = stage_of(Spec::new("client"), server).await? else { return Ok(()) };
    let nginx = Nginx::start(&stage.server.pod, stage.mesh.dir(), 80).await?;
    nginx.page("page", b"here")?;
    let outsider = stage.mesh.pod("outsider")?;
    let mut waiting = JoinSet::new();
    for number in 0..SLOW {
        let stream = outsider.tcp_connect(stage.server.v4(80)).await?;
        waiting.spawn(slow(stream, number % 3));
    }
    let url = format!("http://{}/page?[1-20]", stage.server.v4(80));
    let said = output(scenes::curl(&stage.client.pod, &[], &url)?, LIMIT).await?;
    ensure!(said == "here".repeat(20), "a healthy client suffered: {said}");
    while let Some(ended) = tokio::time::timeout(LIMIT, waiting.join_next()).await? {
        ended??;
    }
    stage.server.outcome("inbound", "handshake_timeout", SLOW as f64).await
}

/// Says nothing, the beginning of a ClientHello, or a byte of one now and then; until it is closed.
async fn slow(mut stream: TcpStream, kind: usize) -> Result<()> {
    // A handshake record of 512 bytes, a ClientHello, of 508 bytes; then nothing of it.
    let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.resize(517, 0);
    let mut rest = match kind {
        0 => &hello[..0],
        1 => {
            stream.write_all(&hello[..3]).await?;
            &hello[..0]
        }
        _ => &hello[..],
    };
    loop {
        let closed = tokio::time::timeout(TRICKLE, stream.read(&mut [0; 64])).await;
        match closed {
            Ok(_) => return Ok(()),
            Err(_) if rest.is_empty() => {}
            // A write that fails is the end as well.
            Err(_) => match stream.write_all(&rest[..1]).await {
                Ok(()) => rest = &rest[1..],
                Err(_) => return Ok(()),
            },
        }
    }
}
