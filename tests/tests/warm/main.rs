//! Mesh connections that are used again: how few handshakes many connections cost, and that a warm
//! connection is never the reason for a lost use, a stale identity or a withdrawn permission.
//!
//! Never: a claim about time; handshakes are counted, not clocked.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod acceptor;
mod endings;
mod few;
mod trust;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Spec, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub(crate) const PORT: u16 = 7_000;
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A mesh with a client and a server whose workload answers each connection with what it said.
pub(crate) struct Stage {
    pub(crate) client: Workload,
    pub(crate) server: Workload,
    pub(crate) mesh: Mesh,
    _echo: Echo,
}

pub(crate) async fn stage(client: &str, limits: &str) -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let server = mesh.workload("server").await?;
    let to = server.pod.v4().to_string();
    let client = Spec::new("client").tables(&client.replace("SERVER", &to)).limits(limits);
    let client = mesh.workload_of(client).await?;
    let echo = Echo::start(&server, PORT).await?;
    Ok(Some(Stage { client, server, mesh, _echo: echo }))
}

/// Listens until it is dropped.
pub(crate) struct Echo([AbortHandle; 2]);

impl Echo {
    pub(crate) async fn start(server: &Workload, port: u16) -> Result<Self> {
        let v4 = server.pod.tcp_listen(server.v4(port)).await?;
        let v6 = server.pod.tcp_listen(server.v6(port)).await?;
        Ok(Self([v4, v6].map(|listener| tokio::spawn(echo(listener)).abort_handle())))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            // A connection that is cut is the client's to notice.
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        });
    }
}

/// One connection of the workload, from its dial to the end of the answer.
pub(crate) async fn ask(pod: &Pod, to: SocketAddr, words: &str) -> Result<()> {
    let mut stream = pod.tcp_connect(to).await?;
    ask_on(&mut stream, words).await
}

pub(crate) async fn ask_on(stream: &mut TcpStream, words: &str) -> Result<()> {
    stream.write_all(words.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.context("no answer")??;
    ensure!(answer == words, "the answer is {answer:?}");
    Ok(())
}

/// Handshakes that came to a good end, as this side counted them.
pub(crate) async fn handshakes(workload: &Workload, direction: &str) -> Result<f64> {
    let labels = [("direction", direction), ("outcome", "ok")];
    Ok(workload.metrics().await?.sum("myelin_handshakes_total", &labels))
}

/// Uses on connections of this kind.
pub(crate) async fn uses(client: &Workload, kind: &str) -> Result<f64> {
    Ok(client.metrics().await?.sum("myelin_mesh_uses_total", &[("kind", kind)]))
}

/// Connections that left the pool for this reason.
pub(crate) async fn retired(client: &Workload, reason: &str) -> Result<f64> {
    let name = "myelin_mesh_connections_retired_total";
    Ok(client.metrics().await?.sum(name, &[("reason", reason)]))
}

/// Waits until a gauge or counter without labels that matter satisfies `is_right`.
pub(crate) async fn until(
    workload: &Workload,
    name: &str,
    is_right: impl Fn(f64) -> bool,
) -> Result<()> {
    eventually(name, SOON, async || {
        let seen = workload.metrics().await?.sum(name, &[]);
        ensure!(is_right(seen), "it is {seen}");
        Ok(true)
    })
    .await
}

pub(crate) async fn idle(client: &Workload, at_least: f64) -> Result<()> {
    until(client, "myelin_mesh_connections_idle", |seen| seen >= at_least).await
}
