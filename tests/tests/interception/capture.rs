//! What is captured: every family and every user, and nothing goes around a dead sidecar.
//!
//! Never: a bypass that is not in the documented table.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use myelin_lab::Pod;
use myelin_tests::binaries;
use myelin_tests::programs::{LIMIT, eventually, failure, output};
use myelin_tests::scenes;
use myelin_tests::workload::{INBOUND_PORT, OUTBOUND_PORT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage;

/// Connects, says something, and demands that nothing but an end comes back.
async fn demand_refusal(from: &Pod, to: SocketAddr) -> Result<()> {
    let Ok(mut stream) = from.tcp_connect(to).await else { return Ok(()) };
    // A reset may come before or after this.
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut heard)).await?;
    ensure!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{to} answered {heard:?}");
    ensure!(ended.is_err() || heard.len() <= 7, "{to} ended cleanly after {} bytes", heard.len());
    Ok(())
}

/// T30: the proxy's own ports, from another pod and from the pod itself, lead nowhere.
#[tokio::test]
async fn own_ports_dialled_directly_are_a_loop() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let outsider = stage.mesh.pod("outsider")?;
    for port in [INBOUND_PORT, OUTBOUND_PORT] {
        for to in [stage.server.v4(port), stage.server.v6(port)] {
            demand_refusal(&outsider, to).await?;
            demand_refusal(&stage.client.pod, to).await?;
        }
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let own: [IpAddr; 4] = [
            stage.server.pod.v4(),
            stage.server.pod.v6(),
            mapped.into(),
            Ipv6Addr::LOCALHOST.into(),
        ];
        for address in own {
            demand_refusal(&stage.server.pod, SocketAddr::new(address, port)).await?;
        }
    }
    // From outside, and from inside to the listener that takes what the pod's peers dial.
    stage.server.outcome("inbound", "loop", 8.0).await?;
    stage.server.outcome("outbound", "loop", 4.0).await?;
    stage.demand_page().await
}

/// T31: a workload under the proxy's own UID lacks the mark, so it is captured like any other.
#[tokio::test]
async fn workload_under_the_proxy_uid_is_captured() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let uid = stage.mesh.ground().proxy_uid();
    for server in [stage.server.v4(80), stage.server.v6(80)] {
        let get = scenes::curl(&stage.client.pod, &[], &format!("http://{server}/page"))?;
        let said = output(get.identity(uid, uid), LIMIT).await?;
        ensure!(said == stage.mesh.canary(), "the page was {said:?}");
    }
    stage.client.outcome("outbound", "completed", 2.0).await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}

/// T31, the documented bypasses: loopback and the pod's own addresses never leave the pod.
#[tokio::test]
async fn loopback_and_own_addresses_are_direct_and_never_on_the_wire() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let own = &stage.server;
    let loopback = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 80);
    for server in [loopback, own.v4(80), own.v6(80)] {
        let get = scenes::curl(&own.pod, &[], &format!("http://{server}/page"))?;
        ensure!(
            output(get, LIMIT).await? == stage.mesh.canary(),
            "{server} is not reachable from its pod"
        );
    }
    ensure!(
        own.metrics().await?.sum("myelin_connections_opened_total", &[]) == 0.0,
        "it was captured"
    );
    stage.mesh.demand_clean_wire().await.map(drop)
}

/// T31, the documented bypass that crosses the wire: UDP is not protected, and the capture shows it.
#[tokio::test]
async fn udp_is_not_protected_and_the_capture_says_so() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let (from, to) = (stage.client.pod.v4(), stage.server.v4(9));
    let word = stage.mesh.canary().to_owned();
    stage.client.pod.run(move || {
        let socket = std::net::UdpSocket::bind((from, 0))?;
        socket.send_to(word.as_bytes(), to)
    })??;
    ensure!(
        stage.mesh.watch.report().await?.canary_hits() > 0,
        "UDP was captured after all: document it"
    );
    Ok(())
}

/// T32: plaintext from outside is refused over both families, before the workload hears of it.
#[tokio::test]
async fn plaintext_from_outside_never_reaches_the_workload() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let listener = stage.server.pod.tcp_listen(stage.server.v4(7000)).await?;
    let outsider = stage.mesh.pod("outsider")?;
    demand_refusal(&outsider, stage.server.v4(7000)).await?;
    demand_refusal(&outsider, stage.server.v6(80)).await?;
    stage.server.outcome("inbound", "plaintext_refused", 2.0).await?;
    let nobody =
        tokio::time::timeout(std::time::Duration::from_millis(300), listener.accept()).await;
    ensure!(nobody.is_err(), "the workload was connected to");
    stage.demand_page().await
}

/// T33: with the rules there and no sidecar, nothing leaves and nothing enters, in any phase.
#[tokio::test]
async fn dead_sidecar_refuses_and_leaks_nothing_until_it_is_back() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let outsider = stage.mesh.pod("outsider")?;
    let url = format!("http://{}/page", stage.server.v4(80));
    let word = format!("X-Word: {}", stage.mesh.canary());
    let get = |from: &Pod| scenes::curl(from, &["-H", &word, "--max-time", "5"], &url);

    stage.client.kill9();
    failure(get(&stage.client.pod)?, LIMIT).await?;
    stage.server.kill9();
    failure(get(&outsider)?, LIMIT).await?;
    stage.client.start()?;
    // While it starts it may refuse or serve; what it may not do is pass.
    let _ = get(&stage.client.pod)?.spawn()?.wait(LIMIT).await?;
    stage.client.ready().await?;
    failure(get(&stage.client.pod)?, LIMIT).await?;
    stage.server.run().await?;
    eventually("the page is back", LIMIT, async || {
        Ok(output(get(&stage.client.pod)?, LIMIT)
            .await
            .is_ok_and(|said| said == stage.mesh.canary()))
    })
    .await?;
    // The outsider's own request is plaintext, and refused: that one said the word itself.
    let report = stage.mesh.watch.report().await?;
    let from_outside = outsider.v4();
    let leaks: Vec<_> = report.non_tls.keys().filter(|(from, _)| *from != from_outside).collect();
    ensure!(leaks.is_empty(), "not TLS: {leaks:?}");
    ensure!(report.canary_hits() == 0, "the word was readable: {report:?}");
    Ok(())
}

/// T33: rules that are there before the first start hold the workload back.
#[tokio::test]
async fn sidecar_that_has_not_started_yet_lets_nothing_pass() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let early = stage.mesh.prepare(myelin_tests::Spec::new("early")).await?;
    let url = format!("http://{}/page", stage.server.v6(80));
    failure(scenes::curl(&early.pod, &["--max-time", "5"], &url)?, LIMIT).await?;
    early.run().await?;
    let said = output(scenes::curl(&early.pod, &[], &url)?, LIMIT).await?;
    ensure!(said == stage.mesh.canary(), "the page was {said:?}");
    stage.mesh.demand_clean_wire().await.map(drop)
}

/// T35: applied twice, removed, applied again: the same rules, as `nft` reads them.
#[tokio::test]
async fn rules_applied_twice_or_again_are_identical() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let rules = async || {
        let nft = stage.client.pod.command(binaries::installed("nft", "nftables")?);
        output(nft.args(["-s", "list", "ruleset"]), LIMIT).await
    };
    let first = rules().await?;
    ensure!(first.contains("table inet myelin"), "no rules: {first}");
    output(stage.client.intercept(&["apply"])?, LIMIT).await?;
    ensure!(rules().await? == first, "applying twice changed the rules");
    stage.demand_page().await?;
    output(stage.client.intercept(&["remove"])?, LIMIT).await?;
    ensure!(rules().await?.trim().is_empty(), "something is left after removal");
    output(stage.client.intercept(&["apply"])?, LIMIT).await?;
    ensure!(rules().await? == first, "applying again made other rules");
    stage.demand_page().await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}
