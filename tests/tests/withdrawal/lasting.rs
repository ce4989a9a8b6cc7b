//! A revocation lasts: over restarts of the CA and of the sidecars that know of it, until it is
//! taken back or until the last certificate would have ended.
//!
//! Never: a clock that is set; the short lifetimes of tests are waited for.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options};

use crate::{PORT, ask, deny_epoch, is_refused, revoke};

#[tokio::test]
async fn it_survives_restarts_of_ca_and_sidecar_and_ends_when_it_is_taken_back() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    ask(&client.pod, &listener).await?;
    revoke(&mesh.ca, &client.spec.id()).await?;
    eventually("the server knows", Duration::from_secs(5), async || {
        Ok(deny_epoch(&server).await? >= 1.0)
    })
    .await?;

    mesh.ca.kill9();
    is_refused(&client.pod, server.v4(PORT)).await?;
    mesh.ca.up().await?;
    let listed = mesh.ca.operate(&["revoke", "list"]).await?;
    ensure!(listed.contains("/sa/client") && listed.contains("a test of withdrawal"), "{listed}");
    is_refused(&client.pod, server.v4(PORT)).await?;

    server.kill9();
    server.run().await?;
    let kept = "deny list of an earlier run taken over";
    ensure!(server.log()?.contains(kept), "the first snapshot did not know of the denial");
    is_refused(&client.pod, server.v4(PORT)).await?;

    let number = listed.split_whitespace().next().unwrap_or_default().to_owned();
    let undone = mesh.ca.operate(&["revoke", "undo", &number]).await?;
    ensure!(undone.contains("taken back"), "{undone}");
    let again = mesh.ca.refuse(&["revoke", "undo", &number]).await?;
    ensure!(again.contains("no denial number"), "{again}");
    eventually("the client is let in again", Duration::from_secs(30), async || {
        ask(&client.pod, &listener).await?;
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn it_clears_itself_when_the_last_certificate_would_have_ended() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(20)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    ask(&client.pod, &listener).await?;
    revoke(&mesh.ca, &client.spec.id()).await?;
    is_refused(&client.pod, server.v4(PORT)).await?;
    eventually("the list is empty again", Duration::from_secs(30), async || {
        Ok(mesh.ca.operate(&["revoke", "list"]).await?.trim().is_empty())
    })
    .await?;
    // The old host key stays out; a new one with a new token is a new workload of that ID.
    client.kill9();
    client.start()?;
    eventually("its host key is barred", Duration::from_secs(20), async || {
        Ok(client.log()?.contains("host_denied"))
    })
    .await?;
    client.kill9();
    std::fs::remove_dir_all(client.state_dir())?;
    let token = mesh.ca.token(&client.spec.id(), client.addresses()).await?;
    std::fs::write(client.dir().join("token"), token)?;
    client.run().await?;
    ask(&client.pod, &listener).await
}
