//! Trust that is withdrawn while it is in use, end to end (T11, T53, T56, T61): by the CA's alarm,
//! by an operator, and with the news held back by the network.
//!
//! Never: a deny list that the test wrote itself; only the CA's own counts.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod copies;
mod held_back;
mod lasting;
mod revoked;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use myelin_tests::Workload;
use myelin_tests::ca::Ca;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const PORT: u16 = 7_000;
/// What the documentation promises from the operator's command to the end of a running use.
pub(crate) const PROMISED: Duration = Duration::from_secs(5);

/// A use that runs, as both workloads have it.
pub(crate) struct Running {
    at_client: TcpStream,
    at_server: TcpStream,
}

impl Running {
    pub(crate) async fn start(from: &Pod, listener: &TcpListener) -> Result<Self> {
        let to = listener.local_addr()?;
        let at_client = from.tcp_connect(to).await?;
        let (at_server, _) = listener.accept().await?;
        let mut running = Self { at_client, at_server };
        running.talk().await?;
        Ok(running)
    }

    /// Both directions carry.
    pub(crate) async fn talk(&mut self) -> Result<()> {
        let mut heard = [0; 5];
        self.at_client.write_all(b"there").await?;
        self.at_server.read_exact(&mut heard).await?;
        self.at_server.write_all(b"back.").await?;
        self.at_client.read_exact(&mut heard).await?;
        ensure!(&heard == b"back.");
        Ok(())
    }

    /// Both ends see a reset within what is promised; never an end that looks whole.
    pub(crate) async fn ends_cut(mut self) -> Result<()> {
        let ended = tokio::time::timeout(PROMISED, async {
            let (mut one, mut two) = ([0; 1], [0; 1]);
            tokio::join!(self.at_client.read(&mut one), self.at_server.read(&mut two))
        });
        let (client, server) = ended.await.context("the use still runs after 5 s")?;
        ensure!(client.is_err() && server.is_err(), "ended, not cut: {client:?} {server:?}");
        Ok(())
    }
}

/// One short use from dial to end: it leaves a warm mesh connection behind.
pub(crate) async fn ask(from: &Pod, listener: &TcpListener) -> Result<()> {
    let Running { mut at_client, mut at_server } = Running::start(from, listener).await?;
    at_client.shutdown().await?;
    ensure!(at_server.read(&mut [0; 1]).await? == 0);
    at_server.shutdown().await?;
    ensure!(at_client.read(&mut [0; 1]).await? == 0);
    Ok(())
}

/// Nobody answers a use from here to there, and nothing of it arrives.
pub(crate) async fn is_refused(from: &Pod, to: SocketAddr) -> Result<()> {
    let tried = async {
        let mut stream = from.tcp_connect(to).await?;
        stream.write_all(b"still?").await?;
        Ok::<_, anyhow::Error>(stream.read(&mut [0; 1]).await?)
    };
    let said = tokio::time::timeout(Duration::from_secs(20), tried).await;
    let said = said.context("neither answered nor refused")?;
    ensure!(said.is_err(), "let in: {said:?}");
    Ok(())
}

pub(crate) async fn revoke(ca: &Ca, id: &str) -> Result<String> {
    ca.operate(&["revoke", "--id", id, "--reason", "a test of withdrawal"]).await
}

pub(crate) async fn deny_epoch(of: &Workload) -> Result<f64> {
    Ok(of.metrics().await?.sum("myelin_deny_list_epoch", &[]))
}
