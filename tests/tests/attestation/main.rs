//! How real sidecars attest without a join token, end to end: pods by their service-account
//! tokens, machines by certificates that they have already.
//!
//! Never: a cluster; the test plays the API server's signer and the kubelet.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod cluster;
mod machines;
mod pods;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::Workload;
use myelin_tests::programs::eventually;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const PORT: u16 = 7_000;

/// A directory that the CA may read.
pub(crate) fn shared() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("myelin-attest-").tempdir()?;
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
    Ok(dir)
}

pub(crate) fn now() -> u64 {
    myelin_tests::forge::now()
}

/// One connection from workload to workload, both directions carried.
pub(crate) async fn talk(from: &Workload, to: &Workload) -> Result<()> {
    let listener = to.pod.tcp_listen(to.v4(PORT)).await?;
    let spoken = async {
        let mut client = from.pod.tcp_connect(to.v4(PORT)).await?;
        client.write_all(b"there").await?;
        let (mut server, _) = listener.accept().await?;
        let mut heard = [0; 5];
        server.read_exact(&mut heard).await?;
        server.write_all(&heard).await?;
        client.read_exact(&mut heard).await?;
        ensure!(&heard == b"there");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), spoken).await.context("nobody answered")?
}

/// Waits until this many attempts for an SVID have ended with this word.
pub(crate) async fn attempts(of: &Workload, word: &str, more: f64) -> Result<()> {
    let what = format!("{}: {more} more attempts end as {word}", of.spec.name);
    let seen = async || {
        Ok::<_, anyhow::Error>(
            of.metrics().await?.sum("myelin_renewals_total", &[("outcome", word)]),
        )
    };
    let before = seen().await?;
    eventually(&what, Duration::from_secs(40), async || Ok(seen().await? >= before + more))
        .await
        .with_context(|| of.last_words())
}

/// Waits until the sidecar's log says this.
pub(crate) async fn says(of: &Workload, words: &str) -> Result<()> {
    let what = format!("{} says {words}", of.spec.name);
    eventually(&what, Duration::from_secs(30), async || Ok(of.log()?.contains(words)))
        .await
        .with_context(|| of.last_words())
}
