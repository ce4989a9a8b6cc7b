//! Permissive mode tells nobody from the mesh anything in plaintext (T58).
//!
//! Never: permissive without its date.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::programs::LIMIT;
use myelin_tests::{Mesh, Options, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 2525;
const PERMISSIVE: &str = "[[inbound.port]]\nport = 2525\nmode = \"permissive\"\n\
                          until = 2099-01-01T00:00:00Z\nserver_first = true\n";

/// A workload that speaks first, with the canary.
fn speaks_first(listener: tokio::net::TcpListener, word: String) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let word = word.clone();
            tokio::spawn(async move {
                stream.write_all(word.as_bytes()).await?;
                stream.read_to_end(&mut Vec::new()).await
            });
        }
    });
}

#[tokio::test]
async fn meshed_source_that_delays_its_hello_hears_nothing_in_plaintext() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = Spec::new("server").tables(PERMISSIVE).limits("detect_timeout = \"2s\"");
    let server = mesh.workload_of(server).await?;
    // Its own rules let this port pass, so that the test can play the attacker in its place.
    let mut attacked = Spec::new("client");
    attacked.intercept = ["--exclude-outbound-port", "2525"].map(str::to_owned).to_vec();
    let client = mesh.workload_of(attacked).await?;
    for to in [server.v4(PORT), server.v6(PORT)] {
        speaks_first(server.pod.tcp_listen(to).await?, mesh.canary().to_owned());
    }
    for to in [server.v4(PORT), server.v6(PORT)] {
        let mut silent = client.pod.tcp_connect(to).await?;
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(LIMIT, silent.read_to_end(&mut heard)).await?;
        ensure!(heard.is_empty(), "in plaintext it heard {:?}", String::from_utf8_lossy(&heard));
        ensure!(ended.is_err(), "a refused connection ended cleanly");
    }
    server.outcome("inbound", "detect_timeout", 2.0).await?;
    let mut talkative = client.pod.tcp_connect(server.v4(PORT)).await?;
    talkative.write_all(b"EHLO attacker\r\n").await?;
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(LIMIT, talkative.read_to_end(&mut heard)).await?;
    ensure!(!String::from_utf8_lossy(&heard).contains(mesh.canary()), "plaintext was answered");
    server.outcome("inbound", "plaintext_refused", 1.0).await?;
    ensure!(mesh.watch.report().await?.canary_hits() == 0, "the word crossed the wire");

    // Its twin: a source that nobody knows as meshed is what permissive mode is for.
    let outsider = mesh.pod("outsider")?;
    let mut stream = outsider.tcp_connect(server.v4(PORT)).await?;
    let mut heard = vec![0; mesh.canary().len()];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await??;
    ensure!(heard == mesh.canary().as_bytes(), "the outsider heard {heard:?}");
    let metrics = server.metrics().await?;
    let labels = [("direction", "inbound"), ("security", "permissive")];
    drop(stream);
    ensure!(
        metrics.sum("myelin_connections_open", &labels[..1]) >= 1.0,
        "{:?}",
        metrics.outcomes()
    );
    Ok(())
}
