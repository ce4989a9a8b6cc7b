//! Policies of the cluster, end to end: what somebody writes into the API reaches the sidecars of whom
//! it is about, and nobody else's.
//!
//! Never: a schema (the fake of the API stores whatever it is given); a policy in a sidecar's own file.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_lab::Pod;
use myelin_tests::Workload;
use myelin_tests::programs::{LIMIT, eventually};
use myelin_tests::running::{Running, ask};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::stage::{Stage, TARGET};

/// A workload that policies are about, behind the Service `web`, and two that call it.
struct Governed {
    stage: Stage,
    server: Workload,
    client: Workload,
    other: Workload,
    listener: TcpListener,
}

async fn governed() -> Result<Option<Governed>> {
    let Some(stage) = Stage::new().await? else { return Ok(None) };
    stage.service("web", &crate::stage::WEB);
    let server = stage.governed("server").await?;
    let (client, other) = (stage.workload("client").await?, stage.workload("other").await?);
    stage.pod_of(&server, &json!({ "app": "web" }));
    let listener = server.pod.tcp_listen(server.v4(TARGET)).await?;
    for from in [&client, &other] {
        ask(&from.pod, &listener).await?;
    }
    Ok(Some(Governed { stage, server, client, other, listener }))
}

fn only(accounts: &[&str]) -> Value {
    json!({
        "targetRefs": [{ "group": "", "kind": "Service", "name": "web" }],
        "action": "Allow",
        "rules": [{ "from": [{ "serviceAccounts": accounts }], "to": [{ "ports": [TARGET] }] }],
    })
}

fn deny(from: &Value) -> Value {
    json!({
        "targetRefs": [{ "group": "", "kind": "ServiceAccount", "name": "server" }],
        "action": "Deny",
        "rules": [{ "from": [from] }],
    })
}

impl Governed {
    /// Waits until just these of client and other enter.
    async fn enter(&self, expected: [bool; 2]) -> Result<()> {
        eventually(&format!("client and other enter: {expected:?}"), LIMIT, async || {
            let mut seen = [false; 2];
            for (seen, from) in seen.iter_mut().zip([&self.client, &self.other]) {
                *seen = ask(&from.pod, &self.listener).await.is_ok();
            }
            Ok(seen == expected)
        })
        .await
    }

    async fn accepted(&self, kind: &str, name: &str, expected: &str) -> Result<()> {
        eventually(&format!("{name} is {expected}"), LIMIT, async || {
            let said = self.stage.condition(kind, name);
            ensure!(said == expected, "it is {said:?}");
            Ok(true)
        })
        .await
    }
}

const AUTHORIZATIONS: &str = "authorizationpolicies";
const AUTHENTICATIONS: &str = "peerauthentications";

#[tokio::test]
async fn an_allow_lets_in_whom_it_names_and_its_end_ends_what_runs() -> Result<()> {
    let Some(it) = governed().await? else { return Ok(()) };
    // About another's account, and of another namespace: nobody's.
    let mut others = only(&["nobody"]);
    others["targetRefs"] = json!([{ "group": "", "kind": "ServiceAccount", "name": "other" }]);
    it.stage.policy(AUTHORIZATIONS, "others", &others);
    it.accepted(AUTHORIZATIONS, "others", "True Accepted").await?;
    it.enter([true, true]).await?;
    it.stage.policy(AUTHORIZATIONS, "web", &only(&["client"]));
    it.enter([true, false]).await?;
    it.server.outcome("inbound", "policy_denied", 1.0).await?;
    it.accepted(AUTHORIZATIONS, "web", "True Accepted").await?;
    let mut running = Running::start(&it.client.pod, &it.listener).await?;
    // Another is allowed beside it: what runs goes on.
    it.stage.policy(AUTHORIZATIONS, "web", &only(&["client", "other"]));
    it.enter([true, true]).await?;
    running.talk().await?;
    // The client is allowed no longer: what it has open ends.
    it.stage.policy(AUTHORIZATIONS, "web", &only(&["other"]));
    running.ends_cut().await?;
    it.enter([false, true]).await?;
    it.stage.no_policy(AUTHORIZATIONS, "web");
    it.enter([true, true]).await?;
    it.stage.mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn deny_wins_and_one_that_cannot_be_read_lets_in_nobody() -> Result<()> {
    let Some(it) = governed().await? else { return Ok(()) };
    it.stage.policy(AUTHORIZATIONS, "web", &only(&["client", "other"]));
    it.stage.policy(AUTHORIZATIONS, "not-other", &deny(&json!({ "serviceAccounts": ["other"] })));
    it.enter([true, false]).await?;
    // By where it comes from.
    let source = json!({ "cidrs": [format!("{}/32", it.client.pod.v4())] });
    it.stage.policy(AUTHORIZATIONS, "not-other", &deny(&source));
    it.enter([false, true]).await?;
    it.stage.policy(AUTHORIZATIONS, "not-other", &deny(&json!({ "ids": ["other"] })));
    it.enter([false, false]).await?;
    it.accepted(AUTHORIZATIONS, "not-other", "False Invalid").await?;
    it.stage.no_policy(AUTHORIZATIONS, "not-other");
    it.enter([true, true]).await?;
    // What holds outlives the controller.
    it.stage.policy(AUTHORIZATIONS, "web", &only(&["client"]));
    it.enter([true, false]).await?;
    it.stage.kill_controller();
    for _ in 0..5 {
        it.enter([true, false]).await?;
    }
    it.stage.no_policy(AUTHORIZATIONS, "web");
    it.stage.start_controller()?;
    it.enter([true, true]).await?;
    it.stage.mesh.demand_clean_wire().await.map(drop)
}

/// What a plaintext client hears that speaks first.
async fn plain(from: &Pod, server: &Workload) -> Result<String> {
    let spoken = async {
        let mut stream = from.tcp_connect(server.v4(TARGET)).await?;
        stream.write_all(b"?").await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        Ok(heard)
    };
    timeout(Duration::from_secs(20), spoken).await?
}

#[tokio::test]
async fn permissive_lets_plaintext_in_and_strict_refuses_it() -> Result<()> {
    let Some(stage) = Stage::new().await? else { return Ok(()) };
    let server = stage.governed("server").await?;
    stage.pod_of(&server, &json!({ "app": "web" }));
    let listener = server.pod.tcp_listen(server.v4(TARGET)).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.read_exact(&mut [0; 1]).await?;
                stream.write_all(b"heard").await
            });
        }
    });
    let bare = stage.mesh.pod("bare")?;
    let hears = async |expected: bool| {
        let what = if expected { "plaintext enters" } else { "plaintext is refused" };
        let seen =
            async || Ok((plain(&bare, &server).await.ok().as_deref() == Some("heard")) == expected);
        eventually(what, LIMIT, seen).await
    };
    hears(false).await?;
    server.outcome("inbound", "plaintext_refused", 1.0).await?;
    let permissive = json!({ "mode": "Permissive", "until": "2099-01-01T00:00:00Z" });
    let mut others = permissive.clone();
    others["targetRefs"] = json!([{ "group": "", "kind": "ServiceAccount", "name": "other" }]);
    stage.policy(AUTHENTICATIONS, "others", &others);
    eventually("the others' is judged", LIMIT, async || {
        Ok(stage.condition(AUTHENTICATIONS, "others") == "True Accepted")
    })
    .await?;
    for _ in 0..5 {
        ensure!(plain(&bare, &server).await.is_err(), "another account's policy let it in");
    }
    stage.policy(AUTHENTICATIONS, "all", &permissive);
    hears(true).await?;
    // More exact, and only about one port.
    let port = json!({
        "targetRefs": others["targetRefs"].clone(),
        "ports": [{ "port": TARGET, "mode": "Strict" }],
    });
    stage.policy(AUTHENTICATIONS, "others", &port);
    hears(true).await?;
    let mut own = port;
    own["targetRefs"][0]["name"] = json!("server");
    stage.policy(AUTHENTICATIONS, "own", &own);
    hears(false).await?;
    stage.no_policy(AUTHENTICATIONS, "own");
    hears(true).await?;
    stage.policy(AUTHENTICATIONS, "all", &json!({ "mode": "Strict" }));
    hears(false).await
}
