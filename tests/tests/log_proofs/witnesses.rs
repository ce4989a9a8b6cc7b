//! The real CA with test witnesses of its logs, and sidecars that demand their cosignatures.
//!
//! Never: the CA in the test's hands; what is shown is that both ends mean the same.

// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use myelin_identity::log::LogKey;
use myelin_tests::{Mesh, Options, Spec, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::{PORT, SOON};
use crate::witness::{Manner, TestWitness};

const NAMES: [&str; 2] = ["one.witness.test", "two.witness.test"];

fn address(at: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 19_001 + at as u16)
}

/// A mesh whose CA requires one cosignature of two witnesses, which run in its own pod.
async fn mesh() -> Result<Option<(Mesh, [TestWitness; 2])>> {
    let witness = |at: usize| {
        let key = TestWitness::key_of(NAMES[at]);
        ["--witness".to_owned(), format!("{key}@http://{}", address(at))]
    };
    let mut ca_flags = [witness(0), witness(1)].concat();
    ca_flags.extend(["--witness-quorum".to_owned(), "1".to_owned()]);
    let options = Options { ca_flags, ..Options::default() };
    let Some(mesh) = Mesh::start(options).await? else { return Ok(None) };
    let start = async |at: usize, manner| -> Result<TestWitness> {
        let listener = mesh.ca.pod().tcp_listen(address(at)).await?.into_std()?;
        listener.set_nonblocking(false)?;
        Ok(TestWitness::start_on(listener, NAMES[at], manner))
    };
    let two = [start(0, Manner::Honest).await?, start(1, Manner::Garbled).await?];
    let keys = mesh.ca.operate(&["log", "keys"]).await?;
    ensure!(keys.lines().count() == 2, "{keys}");
    for line in keys.lines() {
        let key: LogKey = line.split_whitespace().last().context("no key")?.parse()?;
        two.iter().for_each(|witness| witness.know(&key));
    }
    Ok(Some((mesh, two)))
}

async fn echo(workload: &Workload) -> Result<()> {
    let listener = workload.pod.tcp_listen(workload.v4(PORT)).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Ok(())
}

async fn call(mesh: &Mesh, client: &Workload, server: &Workload) -> Result<bool> {
    let mut stream = client.pod.tcp_connect(server.v4(PORT)).await?;
    let mut back = Vec::new();
    let exchange = async {
        stream.write_all(mesh.canary().as_bytes()).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut back).await
    };
    // A refusal is a reset or an early end, as the workload sees it.
    let _ = tokio::time::timeout(SOON, exchange).await?;
    Ok(back == mesh.canary().as_bytes())
}

#[tokio::test]
async fn a_peer_whose_checkpoint_lacks_a_demanded_cosignature_is_refused_and_nobody_joins_without_a_quorum()
-> Result<()> {
    let Some((mesh, [one, two])) = mesh().await? else { return Ok(()) };
    let demands = format!("witnesses = [\"{}\"]\nwitness_quorum = 1", one.key);
    let server = mesh.workload_of(Spec::new("server").log(&demands)).await?;
    echo(&server).await?;
    let client = mesh.workload("client").await?;
    ensure!(call(&mesh, &client, &server).await?, "cosigned by the witness that is demanded");
    client.outcome("outbound", "completed", 1.0).await?;

    // From now on the other one alone cosigns: enough for the CA, and not for the server.
    two.behave(Manner::Honest);
    one.behave(Manner::Garbled);
    let other = mesh.workload("other").await?;
    ensure!(!call(&mesh, &other, &server).await?, "not cosigned by it");
    server.outcome("inbound", "log_witnesses_missing", 1.0).await?;
    ensure!(call(&mesh, &client, &server).await?, "who has its cosignature goes on");

    // Nobody cosigns: nobody joins, until somebody does again.
    two.behave(Manner::Garbled);
    let late = mesh.prepare(Spec::new("late")).await?;
    late.start()?;
    let refused = [("outcome", "log_witnesses_missing")];
    myelin_tests::programs::eventually("the CA refuses", SOON * 2, async || {
        Ok(mesh.ca.metrics().await?.sum("myelin_ca_issued_total", &refused) > 0.0)
    })
    .await?;
    one.behave(Manner::Honest);
    late.ready().await?;
    ensure!(call(&mesh, &late, &server).await?, "cosigned by the witness that is demanded");
    Ok(())
}
