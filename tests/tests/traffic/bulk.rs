//! Much at once: a gibibyte that arrives whole, and five hundred connections side by side.
//!
//! Never: a judgement about speed.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_lab::Pod;
use myelin_tests::binaries;
use myelin_tests::programs::output;
use myelin_tests::scenes;
use myelin_tests::servers::Nginx;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::stage;

const GIB: u64 = 1024 * 1024 * 1024;
const MANY: usize = 500;

/// A debug build on a busy machine.
const BULK_LIMIT: Duration = Duration::from_secs(300);

async fn sha256(pod: &Pod, path: &str) -> Result<String> {
    let command = pod.command(binaries::installed("sha256sum", "coreutils")?).arg(path);
    let said = output(command, BULK_LIMIT).await?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_gibibyte_arrives_whole() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let nginx = Nginx::start(&stage.server.pod, stage.mesh.dir(), 80).await?;
    let sent = nginx.root().join("bulk");
    // Random bytes: what is shifted, swapped or lost changes the sum.
    let fill = format!("head -c {GIB} /dev/urandom > {}", sent.display());
    output(stage.server.pod.command("sh").args(["-c", &fill]), BULK_LIMIT).await?;
    let received = stage.mesh.dir().join("received");
    let url = format!("http://{}/bulk", stage.server.v4(80));
    let get = scenes::curl(&stage.client.pod, &["--max-time", "300"], &url)?;
    output(get.stdout_file(File::create(&received)?), BULK_LIMIT).await?;
    ensure!(std::fs::metadata(&received)?.len() == GIB, "not all of it arrived");
    let sums = (
        sha256(&stage.server.pod, &sent.to_string_lossy()).await?,
        sha256(&stage.client.pod, &received.to_string_lossy()).await?,
    );
    ensure!(!sums.0.is_empty() && sums.0 == sums.1, "the sums differ: {sums:?}");
    let metrics = stage.server.metrics().await?;
    let labels = [("direction", "inbound"), ("security", "mesh"), ("flow", "sent")];
    let counted = metrics.sum("myelin_connection_bytes_total", &labels);
    ensure!(counted >= GIB as f64, "counted were {counted} bytes");
    // The queue of a capture may overflow under a gibibyte; what it saw must be clean.
    let report = stage.mesh.demand_clean_wire().await?;
    ensure!(report.canary_hits() == 0, "{report:?}");
    Ok(())
}

/// All are open at once, and each gets its own words back.
#[tokio::test]
async fn five_hundred_connections_live_side_by_side() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let listener = stage.server.pod.tcp_listen(stage.server.v4(7000)).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let mut open = JoinSet::new();
    let all_open = std::sync::Arc::new(tokio::sync::Barrier::new(MANY));
    for number in 0..MANY {
        let to = stage.server.v4(7000);
        let stream = stage.client.pod.tcp_connect(to).await?;
        let (all_open, canary) = (all_open.clone(), stage.mesh.canary().to_owned());
        open.spawn(async move {
            let mut stream = stream;
            let words = format!("{canary} {number:05} ").repeat(100);
            stream.write_all(words.as_bytes()).await?;
            let mut back = vec![0; words.len()];
            stream.read_exact(&mut back).await?;
            all_open.wait().await;
            ensure!(back == words.as_bytes(), "connection {number} got other words");
            Ok(())
        });
    }
    while let Some(ended) = tokio::time::timeout(BULK_LIMIT, open.join_next()).await? {
        ended??;
    }
    stage.server.outcome("inbound", "completed", MANY as f64).await?;
    stage.client.outcome("outbound", "completed", MANY as f64).await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}
