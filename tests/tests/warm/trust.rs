//! T11, T53: trust that is withdrawn between two uses holds for connections that are warm already.
//!
//! Never: a deny list that the test wrote itself; only the CA's own alarm counts.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Spec};

use crate::{Echo, PORT, ask, idle, retired, uses};

/// The acceptor's identity is denied while its dialers hold warm connections to it.
#[tokio::test]
async fn a_peer_that_was_denied_gets_no_use_of_a_warm_connection() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(20)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let bystander = mesh.workload("bystander").await?;
    let client = mesh.workload("client").await?;
    let _echoes = [Echo::start(&server, PORT).await?, Echo::start(&bystander, PORT).await?];
    let thief = mesh.prepare(Spec::new("thief").path("/ns/test/sa/server")).await?;
    thief.steal_state_of(&server)?;
    thief.start()?;
    // Warm all the time, until the CA has denied it.
    let denied = eventually("the CA raises an alarm", Duration::from_secs(60), async || {
        if !mesh.ca.said("alarm") {
            ask(&client.pod, server.v4(PORT), "trusted?").await?;
        }
        Ok(mesh.ca.said("alarm"))
    });
    denied.await?;
    ensure!(uses(&client, "recycled").await? >= 1.0, "no connection was warm");
    let list = "myelin_deny_list_epoch";
    eventually("the client knows", Duration::from_secs(10), async || {
        Ok(client.metrics().await?.sum(list, &[]) >= 1.0)
    })
    .await?;
    for _ in 0..5 {
        let refused = ask(&client.pod, server.v4(PORT), "still?").await;
        ensure!(refused.is_err(), "a denied peer was given a use");
    }
    ensure!(retired(&client, "generation").await? >= 1.0, "nothing was drained");
    // The twin: everybody else is reached as before.
    for round in 0..10 {
        ask(&client.pod, bystander.v4(PORT), &format!("bystander {round}")).await?;
    }
    Ok(())
}

const ALLOWED: &str = "[[inbound.allow]]\nname = \"client\"\nports = [7000]\n\
                       ids = [\"spiffe://mesh.test/ns/test/sa/client\"]\n";
const FORBIDDEN: &str = "[[inbound.allow]]\nname = \"nobody\"\nports = [7000]\n\
                         ids = [\"spiffe://mesh.test/ns/test/sa/nobody\"]\n";

/// The acceptor's policy changes under warm connections: the next use is refused, and allowed
/// again when policy allows it again.
#[tokio::test]
async fn a_policy_that_changed_is_asked_at_the_next_use_of_a_warm_connection() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let mut server = mesh.workload_of(Spec::new("server").tables(ALLOWED)).await?;
    let client = mesh.workload("client").await?;
    let _echo = Echo::start(&server, PORT).await?;
    for round in 0..10 {
        ask(&client.pod, server.v4(PORT), &format!("allowed {round}")).await?;
    }
    idle(&client, 1.0).await?;
    server.reload(|spec| FORBIDDEN.clone_into(&mut spec.tables))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = uses(&client, "recycled").await?;
    for _ in 0..5 {
        let refused = ask(&client.pod, server.v4(PORT), "still?").await;
        ensure!(refused.is_err(), "the use was let in");
    }
    ensure!(uses(&client, "recycled").await? > before, "no warm connection was asked");
    client.outcome("outbound", "peer_said_policy_denied", 5.0).await?;
    server.outcome("inbound", "policy_denied", 5.0).await?;
    server.reload(|spec| ALLOWED.clone_into(&mut spec.tables))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ask(&client.pod, server.v4(PORT), "again?").await
}
