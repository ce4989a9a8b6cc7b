//! Trust that is withdrawn while it is in use: an identity that was copied is denied by the CA, and
//! what runs under it ends at the other side (T53, T56).
//!
//! Never: a deny list that the test wrote itself; only the CA's own alarm counts.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::PORT;

#[tokio::test]
async fn a_copied_identity_is_denied_and_what_runs_under_it_ends() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(20)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let bystander = mesh.workload("bystander").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let mut running = client.pod.tcp_connect(server.v4(PORT)).await?;
    let (mut served, _) = listener.accept().await?;
    let mut other = bystander.pod.tcp_connect(server.v4(PORT)).await?;
    let (mut other_served, _) = listener.accept().await?;

    let thief = mesh.prepare(Spec::new("thief").path("/ns/test/sa/client")).await?;
    thief.steal_state_of(&client)?;
    thief.start()?;

    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        let (mut one, mut two) = ([0; 1], [0; 1]);
        tokio::join!(running.read(&mut one), served.read(&mut two))
    });
    let (at_client, at_server) = ended.await.context("the use still runs")?;
    ensure!(
        at_client.is_err() && at_server.is_err(),
        "cut, not ended: {at_client:?} {at_server:?}"
    );
    eventually("the CA raised an alarm", Duration::from_secs(5), async || {
        Ok(mesh.ca.said("alarm"))
    })
    .await?;
    server.outcome("inbound", "withdrawn", 1.0).await?;

    // The twin: somebody else's use of the same port goes on.
    other.write_all(b"still here").await?;
    let mut heard = [0; 10];
    other_served.read_exact(&mut heard).await?;
    ensure!(&heard == b"still here");
    // And nobody gets in under the copied name any more.
    let refused = client.pod.tcp_connect(server.v4(PORT)).await?.read(&mut [0; 1]).await;
    ensure!(refused.is_err(), "the denied identity was let in: {refused:?}");
    Ok(())
}
