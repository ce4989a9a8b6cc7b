//! Who may talk to the sidecar: operators on their socket, nobody else, and probes that change
//! nothing (T34).
//!
//! Never: a caller that the kernel did not identify.

// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use myelin_tests::http;
use myelin_tests::programs::{LIMIT, failure, output, user};
use myelin_tests::scenes;
use myelin_tests::workload::{INBOUND_PORT, OPS_PORT, OUTBOUND_PORT};

use crate::stage;

/// Paths that have shut other proxies down.
const DANGEROUS: [&str; 6] =
    ["/shutdown", "/quitquitquit", "/reload", "/config", "/certs", "/log-level"];

#[tokio::test]
async fn nothing_on_loopback_takes_orders() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let pod = &stage.client.pod;
    for loopback in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        for path in DANGEROUS {
            for method in ["POST", "PUT", "GET", "DELETE"] {
                let to = SocketAddr::new(loopback, OPS_PORT);
                let answer = http::request(pod, to, method, path).await?;
                ensure!([404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
            }
        }
        for port in [OUTBOUND_PORT, INBOUND_PORT] {
            let to = SocketAddr::new(loopback, port);
            let answer = http::request(pod, to, "POST", "/shutdown").await;
            ensure!(answer.is_err(), "port {port} answered {answer:?}");
        }
        for page in ["/live", "/ready", "/metrics"] {
            let to = SocketAddr::new(loopback, OPS_PORT);
            ensure!(http::request(pod, to, "POST", page).await?.status == 405, "POST {page}");
            ensure!(http::request(pod, to, "GET", page).await?.status == 200, "GET {page}");
        }
    }
    ensure!(stage.client.is_running(), "the sidecar ended");
    stage.demand_page().await
}

#[tokio::test]
async fn admin_socket_serves_root_and_refuses_the_workload() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let socket = stage.client.admin_socket();
    for page in ["/config", "/certs", "/connections", "/log-level"] {
        let answer = http::over_socket(&socket, "GET", page, "").await?;
        ensure!(answer.status == 200, "{page}: {answer:?}");
        ensure!(!answer.body.contains("PRIVATE"), "{page} shows a key");
    }
    let certs = http::over_socket(&socket, "GET", "/certs", "").await?.body;
    ensure!(certs.contains(&stage.client.spec.id()), "{certs}");
    let (uid, gid) = user("nobody")?;
    let path = socket.to_string_lossy().into_owned();
    let ask = scenes::curl(&stage.client.pod, &["--unix-socket", &path], "http://sidecar/config")?;
    let said = failure(ask.identity(uid, gid), LIMIT).await?;
    ensure!(!said.contains("trust_domain"), "the workload read the configuration: {said}");
    Ok(())
}

/// The kernel's word decides even where the file's mode lets everybody connect.
#[tokio::test]
async fn admin_socket_that_anybody_can_open_still_refuses_strangers() -> Result<()> {
    let Some(mut stage) = stage().await? else { return Ok(()) };
    let (uid, gid) = user("nobody")?;
    stage.client.kill9();
    stage.client.spec.admin_uids = vec![uid];
    stage.client.write_config()?;
    stage.client.run().await?;
    let path = stage.client.admin_socket().to_string_lossy().into_owned();
    let ask =
        || scenes::curl(&stage.client.pod, &["--unix-socket", &path], "http://sidecar/config");
    let said = output(ask()?.identity(uid, gid), LIMIT).await?;
    ensure!(said.contains("mesh.test"), "the named operator was refused: {said}");
    let (stranger, group) = user("www-data")?;
    let said = failure(ask()?.identity(stranger, group), LIMIT).await?;
    ensure!(!said.contains("mesh.test"), "a stranger read the configuration: {said}");
    Ok(())
}

/// What an operator reads is what the sidecar goes by.
#[tokio::test]
async fn after_a_reload_the_values_in_force_are_shown_and_the_others_named() -> Result<()> {
    let Some(mut stage) = stage().await? else { return Ok(()) };
    let socket = stage.client.admin_socket();
    let shown = async || -> Result<serde_json::Value> {
        let page = http::over_socket(&socket, "GET", "/config", "").await?;
        Ok(serde_json::from_str(&page.body)?)
    };
    let before = shown().await?;
    ensure!(before["restart_needed"].is_null(), "{before}");
    stage.client.spec.limits = "idle_timeout = \"7m\"".to_owned();
    stage.client.spec.tables =
        "[[inbound.allow]]\nname = \"one\"\nports = [9]\nids = [\"spiffe://mesh.test/ns/a/sa/b\"]\n".to_owned();
    stage.client.write_config()?;
    let reloaded = http::over_socket(&socket, "POST", "/reload", "").await?;
    ensure!(reloaded.status == 200, "{reloaded:?}");
    let after = shown().await?;
    ensure!(after["inbound"]["allow"][0]["name"] == "one", "in force at once: {after}");
    ensure!(after["limits"] == before["limits"], "no limit has changed: {after}");
    ensure!(after["restart_needed"] == serde_json::json!(["limits.idle_timeout"]), "{after}");
    // The twin: after a restart it is in force, and nothing waits.
    stage.client.kill9();
    stage.client.run().await?;
    let restarted = shown().await?;
    ensure!(restarted["limits"]["idle_timeout"] == "7m", "{restarted}");
    ensure!(restarted["restart_needed"].is_null(), "{restarted}");
    Ok(())
}
