//! Who gets nothing: other users, requests without the security header, everybody where nothing is
//! configured, and a workload whose identity is withdrawn.
//!
//! Never: a refusal without its accepted twin.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use myelin_tests::{Mesh, Options, Spec};

use crate::stage::{connect, offering, raw, socket};

const FRIEND: u32 = 2_000;
const STRANGER: u32 = 3_000;
const HEADER: Option<&str> = Some("true");

#[tokio::test]
async fn a_caller_of_another_user_is_refused_and_the_named_one_is_served() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let web = mesh.workload_of(offering(&mesh, "web", &[FRIEND], "")).await?;
    let socket = socket(&mesh, "web");
    for method in ["FetchX509SVID", "FetchX509Bundles"] {
        let said = raw(&web.pod, &mesh, &socket, STRANGER, (method, HEADER)).await?;
        ensure!(said.starts_with("7 user 3000 of group 3000"), "{method}: {said}");
        let said = raw(&web.pod, &mesh, &socket, FRIEND, (method, HEADER)).await?;
        ensure!(said.starts_with("answer "), "{method}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_member_of_a_named_group_is_served() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let more = format!("allowed_gids = [{STRANGER}]");
    let web = mesh.workload_of(offering(&mesh, "web", &[], &more)).await?;
    let said =
        raw(&web.pod, &mesh, &socket(&mesh, "web"), STRANGER, ("FetchX509SVID", HEADER)).await?;
    ensure!(said.starts_with("answer "), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_request_without_the_security_header_is_refused() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let web = mesh.workload_of(offering(&mesh, "web", &[FRIEND], "")).await?;
    let socket = socket(&mesh, "web");
    for call in
        [("FetchX509SVID", None), ("FetchX509Bundles", None), ("FetchX509SVID", Some("false"))]
    {
        let said = raw(&web.pod, &mesh, &socket, FRIEND, call).await?;
        ensure!(said.starts_with("3 security header missing"), "{call:?}: {said}");
    }
    for method in ["FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"] {
        let said = raw(&web.pod, &mesh, &socket, FRIEND, (method, HEADER)).await?;
        ensure!(said.starts_with("12 this Workload API serves X.509"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn there_is_no_socket_and_no_second_svid_unless_configured() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let web = mesh.workload_of(Spec::new("web")).await?;
    ensure!(!socket(&mesh, "web").exists());
    let issued = mesh.ca.metrics().await?;
    let companions = [("attestor", "companion")];
    ensure!(issued.sum("myelin_ca_issued_total", &companions) == 0.0, "nobody asked for one");
    ensure!(web.metrics().await?.sum("myelin_workload_svid_not_after_seconds", &[]) == 0.0);
    Ok(())
}

/// T56, for the workload's own SVID.
#[tokio::test]
async fn a_withdrawn_identity_ends_the_workloads_stream_with_permission_denied() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(20)).await? else { return Ok(()) };
    let web = mesh.workload_of(offering(&mesh, "web", &[FRIEND], "")).await?;
    let bystander = mesh.workload_of(offering(&mesh, "bystander", &[FRIEND], "")).await?;
    let client = connect(&socket(&mesh, "web")).await?;
    let mut stream = client.stream_x509_contexts().await?;
    stream.next().await.context("the stream ended")??;
    let thief = mesh.prepare(Spec::new("thief").path("/ns/test/sa/web")).await?;
    thief.steal_state_of(&web)?;
    thief.start()?;
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
                None => return "an end without a word".to_owned(),
            }
        }
    });
    let said = ended.await.context("the stream goes on")?;
    ensure!(said.contains("permission denied") && said.contains("withdrawn"), "{said}");
    let own = socket(&mesh, "web");
    let said = raw(&web.pod, &mesh, &own, FRIEND, ("FetchX509SVID", HEADER)).await?;
    ensure!(said.starts_with("7 this workload's identity is withdrawn"), "{said}");
    // The twin: nobody else is concerned.
    let other = socket(&mesh, "bystander");
    let said = raw(&bystander.pod, &mesh, &other, FRIEND, ("FetchX509SVID", HEADER)).await?;
    ensure!(said.starts_with("answer "), "{said}");
    Ok(())
}
