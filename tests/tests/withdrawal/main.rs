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
pub(crate) use myelin_tests::running::{Running, ask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const PORT: u16 = 7_000;
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
