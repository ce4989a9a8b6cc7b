//! A probe as the kubelet runs it: from the node, over the network, against the pod's own address;
//! or a command inside. Called by `kubelet`, and by the suite for probes as their authors wrote them.
//!
//! Never: patience; who asks again, and how often, is the caller's.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use myelin_lab::Pod;
use serde_json::Value;

use super::container::{Container, known, texts};
use super::engine::Engine;
use crate::http;

/// What a probe may say here.
const FIELDS: [&str; 8] = [
    "httpGet",
    "exec",
    "tcpSocket",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
];

/// Asks once; an error says why it did not pass.
pub async fn ask(
    engine: &Engine,
    node: &Pod,
    address: IpAddr,
    container: &Container,
    probe: &Value,
) -> Result<()> {
    known(probe, &FIELDS)?;
    if probe["exec"].is_object() {
        return container.exec(engine, &texts(&probe["exec"]["command"])?).await.map(drop);
    }
    if probe["tcpSocket"].is_object() {
        let port = port(&probe["tcpSocket"]["port"], container)?;
        return node.tcp_connect(SocketAddr::new(address, port)).await.map(drop);
    }
    let get = &probe["httpGet"];
    if !get.is_object() {
        bail!("a probe of this kind is not played: {probe}");
    }
    known(get, &["path", "port", "scheme"])?;
    let at = SocketAddr::new(address, port(&get["port"], container)?);
    let answer = http::request(node, at, "GET", get["path"].as_str().unwrap_or("/")).await?;
    ensure!((200..400).contains(&answer.status), "status {}", answer.status);
    Ok(())
}

fn port(named: &Value, container: &Container) -> Result<u16> {
    let number = match named {
        Value::String(name) => {
            let mut ports = container.spec["ports"].as_array().into_iter().flatten();
            let port = ports.find(|port| port["name"] == *name).context("no port of that name")?;
            port["containerPort"].as_u64()
        }
        number => number.as_u64(),
    };
    Ok(u16::try_from(number.context("a port is a number or a name")?)?)
}
