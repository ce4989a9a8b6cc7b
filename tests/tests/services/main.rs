//! Services of Kubernetes by their virtual addresses, end to end: a controller that follows a fake of
//! the API, real sidecars that ask it, and a CA that all of them trust.
//!
//! Never: kube-proxy; a virtual address that anybody has.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

#[expect(dead_code, reason = "nobody rotates a key here")]
#[path = "../attestation/cluster.rs"]
mod cluster;
mod policies;
mod port;
mod stage;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use myelin_tests::Workload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use stage::{Behind, DB, Stage, TARGET, WEB, at, reaches};

pub(crate) fn now() -> u64 {
    myelin_tests::forge::now()
}

/// Of a service behind which somebody wrote the address of whoever asks.
const MINE: &str = "10.77.0.201";

/// Whoever connects is told this word.
async fn serve(pod: &Pod, on: SocketAddr, word: &'static str) -> Result<JoinHandle<()>> {
    let listener = pod.tcp_listen(on).await?;
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A client that is gone heard nothing, and says so itself.
            let _ = stream.write_all(word.as_bytes()).await;
        }
    }))
}

/// The word that is heard there.
pub(crate) async fn says(from: &Workload, to: SocketAddr) -> Result<String> {
    let spoken = async {
        let mut stream = from.pod.tcp_connect(to).await?;
        let mut word = String::new();
        stream.read_to_string(&mut word).await?;
        Ok(word)
    };
    tokio::time::timeout(Duration::from_secs(20), spoken).await.context("nobody answered")?
}

/// A service `web` in front of `server`, and a client of it.
async fn front() -> Result<Option<(Stage, Workload, Workload)>> {
    let Some(stage) = Stage::new().await? else { return Ok(None) };
    let server = stage.workload("server").await?;
    let client = stage.workload("client").await?;
    stage.pod("server-0", "server", &[server.pod.v4(), server.pod.v6()]);
    stage.service("web", &WEB);
    for address in [server.pod.v4(), server.pod.v6()] {
        stage.slice("web", &[Behind::new(address, "server-0")]);
    }
    Ok(Some((stage, server, client)))
}

#[tokio::test]
async fn a_services_address_leads_to_its_pods_and_to_nobody_else() -> Result<()> {
    let Some((stage, server, client)) = front().await? else { return Ok(()) };
    stage.service("mine", &[MINE]);
    stage.pod("mine-0", "server", &[client.pod.v4()]);
    stage.slice("mine", &[Behind::new(client.pod.v4(), "mine-0")]);
    let _v4 = serve(&server.pod, server.v4(TARGET), "four").await?;
    let _v6 = serve(&server.pod, server.v6(TARGET), "six").await?;
    reaches(&client, at(WEB[0]), "four").await?;
    reaches(&client, at(WEB[1]), "six").await?;
    // A pod that calls its own service reaches itself, and nothing leaves it.
    reaches(&server, at(WEB[0]), "four").await?;
    server.ended("outbound", "own_pod", 1.0).await?;
    // Not so one of another identity, for which somebody wrote that very pod's address.
    let _own = serve(&client.pod, client.v4(TARGET), "own").await?;
    ensure!(says(&client, at(MINE)).await.is_err_or_empty(), "an identity was not compared");
    ensure!(client.metrics().await?.outcome("outbound", "own_pod") == 0.0);
    // By its own address, as a headless service resolves to it.
    reaches(&client, server.v4(TARGET), "four").await?;

    // An endpoint that somebody forged: the pod that is named there is another's.
    let before = client.metrics().await?.outcome("outbound", "wrong_peer");
    stage.pod("bait", "client", &[server.pod.v4()]);
    stage.slice("web", &[Behind::new(server.pod.v4(), "bait")]);
    let refused = async || {
        // It ends with a reset.
        let _ = says(&client, at(WEB[0])).await;
        Ok(client.metrics().await?.outcome("outbound", "wrong_peer") > before)
    };
    myelin_tests::programs::eventually(
        "the forged endpoint is refused",
        Duration::from_secs(30),
        refused,
    )
    .await?;
    // Whoever is nobody's service, and nobody's address, is refused as ever.
    ensure!(says(&client, at("10.77.0.250")).await.is_err_or_empty());
    client.outcome("outbound", "unbound_address", 1.0).await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn what_is_known_outlives_the_controller_and_the_rest_waits_for_the_next_one() -> Result<()> {
    let Some((stage, server, client)) = front().await? else { return Ok(()) };
    let _v4 = serve(&server.pod, server.v4(TARGET), "four").await?;
    reaches(&client, at(WEB[0]), "four").await?;
    stage.kill_controller();
    for _ in 0..20 {
        ensure!(says(&client, at(WEB[0])).await? == "four");
    }
    // What was never asked cannot be known, and is refused in its own word.
    ensure!(says(&client, at(DB[0])).await.is_err_or_empty());
    client.outcome("outbound", "directory_unavailable", 1.0).await?;
    // The pods move on while nobody is told.
    let next = stage.workload("next").await?;
    let _next = serve(&next.pod, next.v4(TARGET), "next").await?;
    stage.pod("next-0", "next", &[next.pod.v4()]);
    stage.service("db", &DB);
    stage.slice("db", &[Behind::new(next.pod.v4(), "next-0")]);
    stage.slice("web", &[Behind::new(next.pod.v4(), "next-0")]);
    stage.start_controller()?;
    reaches(&client, at(DB[0]), "next").await?;
    reaches(&client, at(WEB[0]), "next").await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn endpoints_that_are_dead_or_leaving_cost_no_connection() -> Result<()> {
    let Some((stage, server, client)) = front().await? else { return Ok(()) };
    let _v4 = serve(&server.pod, server.v4(TARGET), "four").await?;
    let leaving = stage.workload("leaving").await?;
    let _leaving = serve(&leaving.pod, leaving.v4(TARGET), "leaving").await?;
    let dead = stage.mesh.pod("dead")?;
    stage.pod("leaving-0", "leaving", &[leaving.pod.v4()]);
    stage.pod("dead-0", "server", &[dead.v4()]);
    let (alive, gone) =
        (Behind::new(server.pod.v4(), "server-0"), Behind::new(dead.v4(), "dead-0"));
    let going =
        Behind { ready: false, terminating: true, ..Behind::new(leaving.pod.v4(), "leaving-0") };
    stage.slice("web", &[alive, gone, going]);
    reaches(&client, at(WEB[0]), "four").await?;
    for _ in 0..40 {
        ensure!(says(&client, at(WEB[0])).await? == "four");
    }
    // With nobody else there, whoever leaves still serves.
    stage.slice("web", &[going]);
    reaches(&client, at(WEB[0]), "leaving").await?;
    // And with nobody at all it is refused.
    stage.slice("web", &[]);
    myelin_tests::programs::eventually("the empty service", Duration::from_secs(30), async || {
        Ok(says(&client, at(WEB[0])).await.is_err_or_empty())
    })
    .await?;
    client.outcome("outbound", "unbound_address", 1.0).await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn endpoints_that_are_somebody_else_cost_no_connection_either() -> Result<()> {
    let Some((stage, server, client)) = front().await? else { return Ok(()) };
    let _v4 = serve(&server.pod, server.v4(TARGET), "four").await?;
    // One with another identity than its pod's, and one that speaks no TLS.
    let other = stage.workload("other").await?;
    let _other = serve(&other.pod, other.v4(TARGET), "other").await?;
    let plain = stage.mesh.pod("plain")?;
    let _plain = serve(&plain, SocketAddr::new(plain.v4(), TARGET), "plain").await?;
    stage.pod("other-0", "server", &[other.pod.v4()]);
    stage.pod("plain-0", "server", &[plain.v4()]);
    stage.slice(
        "web",
        &[
            Behind::new(server.pod.v4(), "server-0"),
            Behind::new(other.pod.v4(), "other-0"),
            Behind::new(plain.v4(), "plain-0"),
        ],
    );
    reaches(&client, at(WEB[0]), "four").await?;
    for _ in 0..40 {
        let said = says(&client, at(WEB[0])).await?;
        ensure!(said == "four", "{said:?} answered: {}", client.log()?);
    }
    let log = client.log()?;
    let passed_over =
        |what: &str| log.lines().any(|line| line.contains("passed over") && line.contains(what));
    ensure!(passed_over("wrong_peer") && passed_over(&plain.v4().to_string()), "{log}");
    // Few of them, since each rests.
    ensure!(log.matches("passed over").count() < 20, "{log}");
    // With nobody else there it is refused in its own word.
    stage.slice("web", &[Behind::new(other.pod.v4(), "other-0")]);
    let before = client.metrics().await?.outcome("outbound", "wrong_peer");
    let refused = async || {
        let _ = says(&client, at(WEB[0])).await;
        Ok(client.metrics().await?.outcome("outbound", "wrong_peer") > before)
    };
    myelin_tests::programs::eventually("the impostor is refused", Duration::from_secs(30), refused)
        .await?;
    // The wire is not clean here: one endpoint answers in plaintext, and is told nothing for it.
    Ok(())
}

#[tokio::test]
async fn whoever_is_not_exactly_the_controller_is_asked_nothing() -> Result<()> {
    let Some((stage, server, client)) = front().await? else { return Ok(()) };
    let _v4 = serve(&server.pod, server.v4(TARGET), "four").await?;
    let other = "spiffe://mesh.test/ns/myelin-system/sa/another";
    let wary = stage.workload_asking("wary", other).await?;
    reaches(&client, at(WEB[0]), "four").await?;
    ensure!(says(&wary, at(WEB[0])).await.is_err_or_empty());
    wary.outcome("outbound", "directory_unavailable", 1.0).await?;
    ensure!(wary.log()?.contains("is not the controller"), "{}", wary.last_words());
    // The controller, in turn, tells nobody who shows no SVID.
    ensure!(stage.controller_counts("myelin_controller_service_streams").await? == 1.0);
    let mut bare = stage.mesh.pod("bare")?.tcp_connect(stage.directory()).await?;
    bare.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    let mut heard = Vec::new();
    // An alert at most, and the end.
    let _ = tokio::time::timeout(Duration::from_secs(20), bare.read_to_end(&mut heard)).await?;
    ensure!(heard.len() < 16, "it was told {} bytes", heard.len());
    ensure!(stage.controller_counts("myelin_controller_service_streams").await? == 1.0);
    Ok(())
}

trait Refused {
    fn is_err_or_empty(&self) -> bool;
}

impl Refused for Result<String> {
    /// A reset before a word, or an end without one.
    fn is_err_or_empty(&self) -> bool {
        self.as_ref().map_or(true, String::is_empty)
    }
}
