//! Peers that speak plain mTLS cannot show a proof: exceptions that this sidecar's own configuration has
//! to make, and that are counted.
//!
//! Never: an exception that the CA alone makes.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use myelin_sidecar::addr::Endpoint;
use myelin_sidecar::tls::{self, Deadline, Offer};
use myelin_tests::{Spec, declared_peer};
use tokio::io::AsyncReadExt;

use crate::stage::{PORT, SOON, STRANGER, Stage};

#[tokio::test]
async fn a_declared_plain_mtls_peer_is_let_in_and_counted_as_exempt() -> Result<()> {
    let declared = "[[inbound.port]]\nport = 7000\nplain_mtls = true\nalpn = \"h2\"\n";
    let Some(stage) = Stage::set(Spec::new("server").tables(declared)).await? else {
        return Ok(());
    };
    let own = stage.secret()?;
    let configs = stage.configs(&own)?;
    let to = stage.server.v4(PORT);
    let tcp = stage.stranger.tcp_connect(to).await?;
    let offer = Offer::Plain { alpn: Some(b"h2") };
    let _session = tls::dial(tcp, Endpoint(to), offer, &configs, Deadline(SOON)).await?;
    exempt(&stage, "inbound").await?;
    // The same leaf is refused where it would have to show a proof.
    stage.demand_refused("myelin/1", &own, &[], "not_logged").await
}

#[tokio::test]
async fn a_plain_mtls_peer_that_only_the_directory_names_is_refused() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("client")).await? else { return Ok(()) };
    let to = SocketAddr::new(stage.stranger.v4(), PORT);
    let peer = declared_peer(to.ip(), STRANGER, "protocol = \"mtls:h2\"");
    let declares = stage.workload(Spec::new("declares").tables(&peer)).await?;
    // The directory names it as well, and to the other workload nobody else does.
    stage.ca.lives(STRANGER, stage.stranger.addresses(), "mtls");
    let configs = Arc::new(stage.configs(&stage.secret()?)?);
    let listener = stage.stranger.tcp_listen(to).await?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let configs = Arc::clone(&configs);
            tokio::spawn(async move {
                let session = tls::accept(tcp, &configs, Some(Some(b"h2")), Deadline(SOON)).await;
                tokio::time::sleep(SOON).await;
                drop(session);
            });
        }
    });
    let _through = declares.pod.tcp_connect(to).await?;
    let metric = [("direction", "outbound"), ("outcome", "exempt")];
    myelin_tests::programs::eventually("it is exempt", SOON, async || {
        Ok(declares.metrics().await?.sum("myelin_log_proofs_total", &metric) >= 1.0)
    })
    .await?;
    let mut refused = stage.server.pod.tcp_connect(to).await?;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, refused.read_to_end(&mut answer)).await?;
    ensure!(ended.is_err() && answer.is_empty(), "{answer:?}");
    let outcomes = stage.server.metrics().await?;
    let refused = outcomes.outcome("outbound", "plain_mtls_undeclared");
    ensure!(refused >= 1.0, "{:?}", outcomes.outcomes());
    Ok(())
}

async fn exempt(stage: &Stage, direction: &str) -> Result<()> {
    let metric = [("direction", direction), ("outcome", "exempt")];
    myelin_tests::programs::eventually("it is exempt", SOON, async || {
        Ok(stage.server.metrics().await?.sum("myelin_log_proofs_total", &metric) >= 1.0)
    })
    .await
}
