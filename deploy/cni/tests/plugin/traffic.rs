//! A pod as the kubelet starts it: network first, then the native sidecar, then user init containers. Here
//! something that listens on the sidecar's outbound port stands for the sidecar.
//!
//! Never: a TLS handshake; what a sidecar does with a connection is other suites' business.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_lab::{Lab, addresses};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::stage::{CONFIGURATION, Node};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn nothing_of_a_pod_reaches_the_wire_before_its_sidecar_and_its_init_containers_do_after()
-> Result<()> {
    let Some(mut node) = Node::start().await? else { return Ok(()) };
    let lab = Lab::new()?;
    let (pod, other) = (lab.pod("web", &addresses(1))?, lab.pod("other", &addresses(2))?);
    node.netns = pod.netns().clone();
    let there = other.tcp_listen(SocketAddr::new(other.v4(), 80)).await?;
    // The control: without rules an init container would reach it in plaintext.
    drop(pod.tcp_connect(there.local_addr()?).await?);
    there.accept().await?;
    node.injected(CONFIGURATION);
    ensure!(node.call("ADD").await?.success);
    let early = pod.tcp_connect(there.local_addr()?).await;
    ensure!(format!("{:#}", early.unwrap_err()).contains("refused"), "it got through");
    let sidecar = pod.tcp_listen("0.0.0.0:15001".parse()?).await?;
    let mut init = timeout(SOON, pod.tcp_connect(there.local_addr()?)).await??;
    let (mut taken, _) = timeout(SOON, sidecar.accept()).await??;
    taken.write_all(b"from the sidecar").await?;
    drop(taken);
    let mut heard = String::new();
    timeout(SOON, init.read_to_string(&mut heard)).await??;
    ensure!(heard == "from the sidecar");
    let direct = timeout(Duration::from_millis(300), there.accept()).await;
    ensure!(direct.is_err(), "something came past the sidecar");
    Ok(())
}
