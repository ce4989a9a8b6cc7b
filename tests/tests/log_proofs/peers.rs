//! T59: what a stolen issuer's key is worth against peers that insist on the log, in both directions.
//!
//! Never: a proof that is wrong in two ways.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use myelin_identity::log::{LogProof, entry_of};
use myelin_tests::Spec;
use myelin_tests::forge::{Credential, pkcs8, svid};
use rcgen::{CertifiedIssuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::book::Book;
use crate::ca::{OWN_PLACE, issuer};
use crate::stage::{PORT, SOON, STRANGER, Said, Stage};

#[tokio::test]
async fn two_workloads_whose_svids_are_logged_meet_and_each_is_verified_once() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let client = stage.workload(Spec::new("client").limits("max_uses = 1")).await?;
    for _ in 0..3 {
        let mut stream = client.pod.tcp_connect(stage.server.v4(PORT)).await?;
        stream.write_all(stage.mesh.canary().as_bytes()).await?;
        stream.shutdown().await?;
        let mut back = Vec::new();
        tokio::time::timeout(SOON, stream.read_to_end(&mut back)).await??;
        ensure!(back == stage.mesh.canary().as_bytes(), "{back:?}");
    }
    client.outcome("outbound", "completed", 3.0).await?;
    let judged = |direction, outcome| [("direction", direction), ("outcome", outcome)];
    for (workload, direction) in [(&client, "outbound"), (&stage.server, "inbound")] {
        let metrics = workload.metrics().await?;
        let count = |outcome| metrics.sum("myelin_log_proofs_total", &judged(direction, outcome));
        ensure!(count("verified") == 1.0, "{direction}: verified {}", count("verified"));
        ensure!(count("remembered") >= 2.0, "{direction}: remembered {}", count("remembered"));
    }
    stage.log_condition(true, "peers must be in the log").await
}

/// T59: a leaf signed by hand with a stolen intermediate key, and everything that its holder may try.
#[tokio::test]
async fn a_dialer_whose_leaf_is_not_proven_logged_is_refused_in_its_word() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let shared = &stage.ca.shared;
    let secret = stage.secret()?;
    let genuine = stage.secret()?;
    let proof = stage.ca.log(&genuine.chain[0]);
    let decoded = LogProof::decode(&proof)?;

    stage.demand_refused("no proof", &secret, &[], "not_logged").await?;
    let invalid = "log_proof_invalid";
    stage.demand_refused("the proof of another leaf", &secret, &proof, invalid).await?;
    stage.demand_refused("a truncated proof", &genuine, &proof[..proof.len() - 1], invalid).await?;
    stage.demand_refused("the longest hello of nothing", &genuine, &[1; 8_192], invalid).await?;

    // A log of the thief's own, under the name of ours.
    let own_log = Book::new(shared.leaves.key().name(), 99, 300);
    let by_an_unknown_key = stage.ca.log_in(&own_log, &secret.chain[0]);
    stage.demand_refused("another log key", &secret, &by_an_unknown_key, invalid).await?;

    // A place where something else is.
    let mut moved = decoded.clone();
    moved.leaf.index -= 1;
    stage.demand_refused("another index", &genuine, &moved.encode()?, invalid).await?;

    // The issuer's own half, of another entry.
    let mut half = decoded;
    half.issuer = shared.issuers.inclusion(1);
    stage.demand_refused("the issuer's half", &genuine, &half.encode()?, invalid).await?;

    // The twin of all: the same leaf with its proof; and after it the proof is not needed again.
    ensure!(stage.knock(&genuine, &proof).await? == Said::Accepted);
    ensure!(stage.knock(&genuine, &[]).await? == Said::Accepted);
    Ok(())
}

/// T59: the root's key is stolen as well, but not the root's log.
#[tokio::test]
async fn an_intermediate_that_is_absent_from_the_roots_log_is_refused() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let shared = &stage.ca.shared;
    let below = |log: &Book| -> Result<(CertifiedIssuer<'_, KeyPair>, Credential)> {
        let made = CertifiedIssuer::signed_by(
            issuer("another", log)?,
            KeyPair::generate()?,
            &shared.root,
        )?;
        let key = KeyPair::generate()?;
        let leaf = svid(STRANGER, stage.stranger.addresses())?.signed_by(&key, &made)?;
        let chain = vec![leaf.der().clone(), made.der().clone()];
        Ok((made, Credential { chain, key: pkcs8(&key) }))
    };
    let log = Book::new("mesh.test/log/another", 50, 4);
    let (made, own) = below(&log)?;
    let index = log.append(entry_of(&own.chain[0], &own.chain[1]));
    let proof = |issuer| LogProof { leaf: log.inclusion(index), issuer }.encode();
    for (name, place) in [("our issuer's place", OWN_PLACE), ("its predecessor's", 0)] {
        let proof = proof(shared.issuers.inclusion(place))?;
        stage.demand_refused(name, &own, &proof, "log_proof_invalid").await?;
    }
    // The twin: once it is in the root's log, it is as good as any.
    let place = shared.issuers.append(entry_of(made.der(), shared.root.der()));
    let said = stage.knock(&own, &proof(shared.issuers.inclusion(place))?).await?;
    ensure!(said == Said::Accepted, "{said:?}");
    Ok(())
}

/// T59, the other direction: the workload dials somebody who holds a stolen issuer's key.
#[tokio::test]
async fn an_acceptor_whose_leaf_is_not_proven_logged_hears_nothing() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("client")).await? else { return Ok(()) };
    let (client, ca) = (&stage.server, &stage.ca);
    ca.lives(STRANGER, stage.stranger.addresses(), "myelin/1");
    let to = SocketAddr::new(stage.stranger.v4(), PORT);
    let secret = stage.secret()?;
    let other = ca.log(&stage.secret()?.chain[0]);
    for (name, proof, word) in [
        ("no proof", Vec::new(), "not_logged"),
        ("the proof of another leaf", other, "log_proof_invalid"),
    ] {
        let acceptor = stage.answer_once(&secret, proof).await?;
        let mut stream = client.pod.tcp_connect(to).await?;
        stream.write_all(stage.mesh.canary().as_bytes()).await?;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await?;
        ensure!(ended.is_err() && answer.is_empty(), "{name}: {answer:?}");
        ensure!(acceptor.await?? == 0, "{name}: a use was opened");
        client.outcome("outbound", word, 1.0).await.context(name)?;
    }
    // The twin: the same leaf, logged.
    let proof = ca.log(&secret.chain[0]);
    let acceptor = stage.answer_once(&secret, proof).await?;
    let mut stream = client.pod.tcp_connect(to).await?;
    stream.write_all(b"hello").await?;
    ensure!(acceptor.await?? == 1, "the use was not opened");
    Ok(())
}
