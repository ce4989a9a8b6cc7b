//! An operator revokes an ID or one machine's certificate: what runs ends within 5 s, warm
//! connections included, in both directions; nobody else notices.
//!
//! Never: waits longer than what the documentation promises.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Spec};

use crate::{PORT, Running, ask, is_refused, revoke};

#[tokio::test]
async fn whatever_runs_with_a_revoked_id_is_cut_within_five_seconds_and_nothing_new_begins()
-> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let bystander = mesh.workload("bystander").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let other_way = client.pod.tcp_listen(client.v4(PORT)).await?;
    let from_it = Running::start(&client.pod, &listener).await?;
    let to_it = Running::start(&server.pod, &other_way).await?;
    let mut others = Running::start(&bystander.pod, &listener).await?;
    // Warm in both directions, and with a bystander.
    ask(&client.pod, &listener).await?;
    ask(&server.pod, &other_way).await?;
    ask(&bystander.pod, &listener).await?;

    let said = revoke(&mesh.ca, &client.spec.id()).await?;
    ensure!(said.contains("is revoked until") && said.contains("1 host key(s) barred"), "{said}");
    let (one, two) = tokio::join!(from_it.ends_cut(), to_it.ends_cut());
    one.context("from the revoked")?;
    two.context("to the revoked")?;
    server.outcome("inbound", "withdrawn", 1.0).await?;
    for _ in 0..3 {
        is_refused(&client.pod, server.v4(PORT)).await?;
        is_refused(&server.pod, client.v4(PORT)).await?;
    }
    // The twin: everybody else goes on, what runs and what is new.
    others.talk().await?;
    ask(&bystander.pod, &listener).await?;

    // Nor does it come back: by token, by host key, after a restart of its sidecar.
    let address = client.addresses()[0].to_string();
    let id = client.spec.id();
    let token = mesh.ca.refuse(&["token", "create", "--id", &id, "--address", &address]).await?;
    ensure!(token.contains("is revoked"), "{token}");
    client.kill9();
    client.start()?;
    eventually("its sidecar is told why", Duration::from_secs(20), async || {
        Ok(client.log()?.contains("id_denied"))
    })
    .await?;
    ensure!(mesh.ca.said("id_denied"), "no audit line names the reason");
    mesh.demand_clean_wire().await.map(drop)
}

/// Two machines of one ID: the certificate of one is revoked.
#[tokio::test]
async fn a_revoked_serial_puts_out_one_machine_and_its_replacement_may_join_at_once() -> Result<()>
{
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let path = "/ns/test/sa/twin";
    let one = mesh.workload_of(Spec::new("one").path(path)).await?;
    let two = mesh.workload_of(Spec::new("two").path(path)).await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let of_one = Running::start(&one.pod, &listener).await?;
    let mut of_two = Running::start(&two.pod, &listener).await?;

    let listed = mesh.ca.operate(&["svid", "list"]).await?;
    let address = one.addresses()[0].to_string();
    let line = listed.lines().find(|line| line.starts_with(&format!("{address} "))).unwrap();
    let serial = line.split("serial ").nth(1).unwrap().split(' ').next().unwrap();
    let said = mesh.ca.operate(&["revoke", "--serial", serial]).await?;
    ensure!(said.contains("one machine of"), "{said}");
    of_one.ends_cut().await?;
    of_two.talk().await?;
    is_refused(&one.pod, server.v4(PORT)).await?;
    ask(&two.pod, &listener).await?;
    one.kill9();
    one.start()?;
    eventually("its host key is barred", Duration::from_secs(20), async || {
        Ok(one.log()?.contains("host_denied"))
    })
    .await?;
    // A replacement at the same address, with a host key and a token of its own.
    one.kill9();
    std::fs::remove_dir_all(one.state_dir())?;
    let token = mesh.ca.token(&one.spec.id(), one.addresses()).await?;
    std::fs::write(one.dir().join("token"), token)?;
    one.run().await?;
    ask(&one.pod, &listener).await
}
