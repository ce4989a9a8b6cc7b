//! A use of the mesh as both workloads have it, for tests of how it goes on or ends.
//!
//! Never: an end that looks whole taken for a cut.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What the documentation promises from withdrawn trust to the end of what ran on it.
pub const CUT_WITHIN: Duration = Duration::from_secs(5);
/// Far beyond what a connection takes that is let in at all.
const ARRIVED_WITHIN: Duration = Duration::from_secs(5);

/// A use that runs.
#[derive(Debug)]
pub struct Running {
    pub at_client: TcpStream,
    pub at_server: TcpStream,
}

impl Running {
    pub async fn start(from: &Pod, listener: &TcpListener) -> Result<Self> {
        let at_client = from.tcp_connect(listener.local_addr()?).await?;
        let accepted = timeout(ARRIVED_WITHIN, listener.accept()).await;
        let (at_server, _) = accepted.context("it did not arrive")??;
        let mut running = Self { at_client, at_server };
        running.talk().await?;
        Ok(running)
    }

    /// Both directions carry.
    pub async fn talk(&mut self) -> Result<()> {
        let mut heard = [0; 5];
        self.at_client.write_all(b"there").await?;
        self.at_server.read_exact(&mut heard).await?;
        self.at_server.write_all(b"back.").await?;
        self.at_client.read_exact(&mut heard).await?;
        ensure!(&heard == b"back.");
        Ok(())
    }

    /// Both ends see a reset within what is promised.
    pub async fn ends_cut(mut self) -> Result<()> {
        let ended = timeout(CUT_WITHIN, async {
            let (mut one, mut two) = ([0; 1], [0; 1]);
            tokio::join!(self.at_client.read(&mut one), self.at_server.read(&mut two))
        });
        let (client, server) = ended.await.context("the use still runs after 5 s")?;
        ensure!(client.is_err() && server.is_err(), "ended, not cut: {client:?} {server:?}");
        Ok(())
    }

    /// Ends as it should: it leaves a warm mesh connection behind.
    pub async fn ends_well(mut self) -> Result<()> {
        self.at_client.shutdown().await?;
        ensure!(self.at_server.read(&mut [0; 1]).await? == 0);
        self.at_server.shutdown().await?;
        ensure!(self.at_client.read(&mut [0; 1]).await? == 0);
        Ok(())
    }
}

/// One short use from dial to end.
pub async fn ask(from: &Pod, listener: &TcpListener) -> Result<()> {
    Running::start(from, listener).await?.ends_well().await
}
