//! Policies from a controller, end to end: real sidecars in namespaces of their own, and a controller
//! that speaks the contract under a genuine SVID.
//!
//! Never: the real controller, whose own suite says what it declares.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod controller;
mod plaintext;

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use myelin_identity::policy::{EncodedPolicy, MAX_POLICY_BYTES, PolicyView, RuleView};
use myelin_tests::http::over_socket;
use myelin_tests::programs::eventually;
use myelin_tests::running::{Running, ask};
use myelin_tests::{Mesh, Options, Spec, Workload};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use controller::{Controller, ID};

const PORT: u16 = 7_000;
const SOON: Duration = Duration::from_secs(30);

struct Stage {
    mesh: Mesh,
    controller: Controller,
    client: Workload,
    /// Its sidecar asks the controller.
    server: Workload,
    /// The server's workload.
    listener: TcpListener,
}

/// Everybody runs but the controller.
async fn stage() -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let controller = Controller::new(&mesh, &allows("test")).await?;
    let client = mesh.workload("client").await?;
    let server = asking(&mesh, "server", &controller, ID).await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    Ok(Some(Stage { mesh, controller, client, server, listener }))
}

/// A workload whose sidecar runs and takes only this ID for the controller.
async fn asking(mesh: &Mesh, name: &str, of: &Controller, id: &str) -> Result<Workload> {
    let tables = format!("[policies]\naddress = [\"{}\"]\nid = \"{id}\"\n", of.address());
    let workload = mesh.prepare(Spec::new(name).tables(&tables)).await?;
    workload.start()?;
    Ok(workload)
}

fn rule(name: &str, namespace: &str) -> RuleView {
    RuleView {
        name: name.to_owned(),
        ports: [PORT].into(),
        ids: [].into(),
        namespaces: [namespace.to_owned()].into(),
        cidrs: [].into(),
    }
}

/// Lets this namespace in and nobody else, and looks at who comes from `test`.
fn allows(namespace: &str) -> PolicyView {
    PolicyView {
        allow: [rule("shop/callers", namespace)].into(),
        audit: [rule("shop/look", "test")].into(),
        ..PolicyView::default()
    }
}

impl Stage {
    /// Until the sidecar has an identity, and the reason why it is not ready is this one.
    async fn is_pending(&self, workload: &Workload) -> Result<()> {
        eventually("the sidecar waits for its policy", SOON, async || {
            let page = workload.ops("/ready").await?;
            ensure!(page.status == 503 && page.body.contains("policy_pending"), "{}", page.body);
            let since = workload.metrics().await?.sum("myelin_svid_not_after_seconds", &[]);
            ensure!(since > 0.0, "it has no SVID yet");
            Ok(true)
        })
        .await
    }

    /// The client connects and is cut before anybody hears of it.
    async fn is_refused(&self, word: &str) -> Result<()> {
        let before = self.server.metrics().await?.outcome("inbound", word);
        if let Ok(mut stream) = self.client.pod.tcp_connect(self.server.v4(PORT)).await {
            let mut heard = Vec::new();
            let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut heard)).await?;
            ensure!(ended.is_err() && heard.is_empty(), "{ended:?} {heard:?}");
        }
        self.server.outcome("inbound", word, before + 1.0).await
    }

    async fn counts(&self, name: &str, labels: &[(&str, &str)], at_least: f64) -> Result<()> {
        eventually(&format!("{name} of {labels:?} is {at_least}"), SOON, async || {
            let seen = self.server.metrics().await?.sum(name, labels);
            ensure!(seen >= at_least, "it is {seen}: {}", self.server.last_words());
            Ok(true)
        })
        .await
    }

    async fn connected(&self, is_connected: bool) -> Result<()> {
        eventually("the line to the controller", SOON, async || {
            let seen = self.server.metrics().await?.sum("myelin_policy_connected", &[]);
            Ok(seen == f64::from(u8::from(is_connected)))
        })
        .await
    }

    async fn config(&self) -> Result<Value> {
        let page = over_socket(&self.server.admin_socket(), "GET", "/config", "").await?;
        Ok(serde_json::from_str(&page.body)?)
    }
}

const UPDATES: &str = "myelin_policy_updates_total";

#[tokio::test]
async fn nobody_enters_before_a_controllers_word_and_what_it_takes_back_ends() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    stage.is_pending(&stage.server).await?;
    stage.is_refused("policy_pending").await?;
    let before = stage.config().await?;
    ensure!(before["policy_in_force"]["pending"] == true, "{before}");

    stage.controller.start().await?;
    stage.server.ready().await?;
    let mut running = Running::start(&stage.client.pod, &stage.listener).await?;
    stage.counts("myelin_policy_audited_total", &[], 1.0).await?;
    let log = stage.server.log()?;
    let line = log.lines().find(|line| line.contains("audited")).unwrap_or_default();
    for part in ["shop/look", "spiffe://mesh.test/ns/test/sa/client", "7000", "allowed"] {
        ensure!(line.contains(part), "no {part} in {line:?}");
    }
    let shown = stage.config().await?;
    let version = shown["policy_in_force"]["version"].as_str().unwrap_or_default().to_owned();
    ensure!(version.len() == 32 && shown["policy_in_force"]["connected"] == true, "{shown}");
    let rule = &shown["inbound"]["allow"][0];
    ensure!(rule["name"] == "shop/callers" && rule["said_by"] == "controller", "{rule}");

    // A change that still lets the client in ends nothing.
    let mut more = allows("test");
    more.allow.insert(self::rule("shop/more", "other"));
    let more = stage.controller.says(&more)?;
    stage.counts(UPDATES, &[("outcome", "taken")], 2.0).await?;
    running.talk().await?;
    ensure!(stage.config().await?["policy_in_force"]["version"] == more.to_string());

    stage.controller.says(&allows("other"))?;
    running.ends_cut().await?;
    stage.server.outcome("inbound", "withdrawn", 1.0).await?;
    stage.is_refused("policy_denied").await?;
    stage.controller.says(&allows("test"))?;
    stage.counts(UPDATES, &[("outcome", "taken")], 4.0).await?;
    ask(&stage.client.pod, &stage.listener).await?;
    stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn a_controller_that_is_gone_changes_nothing_and_says_nothing_twice() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    stage.controller.start().await?;
    stage.server.ready().await?;
    let mut running = Running::start(&stage.client.pod, &stage.listener).await?;
    let held = EncodedPolicy::new(&allows("test"))?.version();
    stage.controller.stop().await;
    stage.connected(false).await?;
    running.talk().await?;
    ask(&stage.client.pod, &stage.listener).await?;
    ensure!(stage.server.is_ready().await?, "an outage is no reason to be unready");
    // The file is read again meanwhile: what the controller said stays.
    stage.server.signal(nix::sys::signal::Signal::SIGHUP);
    ask(&stage.client.pod, &stage.listener).await?;

    stage.controller.start().await?;
    stage.connected(true).await?;
    ensure!(stage.controller.asked() == [None, Some(held)], "{:?}", stage.controller.asked());
    stage.counts(UPDATES, &[("outcome", "unchanged")], 1.0).await?;
    running.talk().await?;
    // And it is heard again.
    stage.controller.says(&allows("other"))?;
    running.ends_cut().await?;
    stage.is_refused("policy_denied").await
}

#[tokio::test]
async fn what_cannot_be_read_or_comes_from_somebody_else_changes_nothing() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let other = "spiffe://mesh.test/ns/myelin-system/sa/another";
    let wary = asking(&stage.mesh, "wary", &stage.controller, other).await?;
    stage.controller.start().await?;
    stage.server.ready().await?;
    let mut running = Running::start(&stage.client.pod, &stage.listener).await?;

    // No message at all, a policy that its version does not name, no version.
    let garbage = Bytes::from_static(b"\x0a\x10");
    stage.controller.says_raw(garbage);
    // It ends the stream, and the next answer is the same: each is refused.
    stage.connected(false).await?;
    running.talk().await?;
    stage.controller.says(&allows("test"))?;
    stage.connected(true).await?;
    let version = [&b"\x0a\x10"[..], &[7; 16], b"\x12\x02\x0a\x00"].concat();
    stage.controller.says_raw(version.into());
    stage.counts(UPDATES, &[("outcome", "refused")], 1.0).await?;
    stage.controller.says_raw(Bytes::new());
    stage.counts(UPDATES, &[("outcome", "refused")], 2.0).await?;
    running.talk().await?;
    ensure!(stage.server.log()?.contains("what the controller says is not taken"));
    // More than a policy may be.
    stage.controller.says_raw(vec![0x12; MAX_POLICY_BYTES + 4_096].into());
    stage.connected(false).await?;
    running.talk().await?;
    stage.controller.says(&allows("other"))?;
    stage.counts(UPDATES, &[("outcome", "taken")], 2.0).await?;
    running.ends_cut().await?;

    // It was there all the time, and is not whom the file of this one names.
    stage.is_pending(&wary).await?;
    ensure!(wary.log()?.contains("is not the controller"), "{}", wary.last_words());
    ensure!(wary.metrics().await?.sum(UPDATES, &[]) == 0.0);
    Ok(())
}
