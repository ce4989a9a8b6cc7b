//! Acknowledgements that are lies. A holder says that it trusts what it does not: a generation that
//! does not exist counts for nothing and is said aloud, one that exists strands the liar and nobody
//! else, and nobody can speak for another or for an SVID that he does not hold.
//!
//! Never: an SVID that the CA did not issue.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Result, ensure};
use myelin_tests::ca::Ca;
use myelin_tests::knock::{self, Said};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options};
use serde_json::json;

use crate::bare::Bare;
use crate::{PORT, Running, SOME_LIVES, refused, rotate, status, trusts};

/// The honest one renews, and the liar, who never does, has not expired by then.
const LIFETIME: u64 = 80;

/// Waits until the CA has heard this many acknowledgements of one kind.
async fn heard(ca: &Ca, word: &str, at_least: f64) -> Result<()> {
    eventually(&format!("{at_least} acknowledgements {word}"), SOME_LIVES, async || {
        let heard = ca.metrics().await?.sum("myelin_ca_acks_total", &[("outcome", word)]);
        ensure!(heard >= at_least, "{heard}");
        Ok(true)
    })
    .await
}

/// Waits until exactly these are outstanding.
async fn outstanding(ca: &Ca, who: &[&str]) -> Result<()> {
    eventually(&format!("outstanding are {who:?}"), SOME_LIVES, async || {
        let seen = status(ca).await?;
        ensure!(seen["outstanding_ids"] == json!(who), "{seen}");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_holder_that_lies_speaks_for_nobody_else_and_strands_only_itself() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let (ca, id) = (&mesh.ca, |name: &str| format!("spiffe://mesh.test/ns/test/sa/{name}"));
    let (liar, silent) = (id("liar"), id("silent"));
    let [lying, keeping] = [mesh.pod("liar")?, mesh.pod("silent")?];
    let honest = mesh.workload("honest").await?;
    let client = mesh.workload("client").await?;
    let listener = honest.pod.tcp_listen(honest.v4(PORT)).await?;
    let liars = Bare::enrol(ca, &lying, &liar).await?;
    let silents = Bare::enrol(ca, &keeping, &silent).await?;
    let talk = liars.watch(&lying).await?;
    let _says_nothing = silents.watch(&keeping).await?;
    rotate(ca, &["prepare"]).await?;
    trusts(&honest, 2.0).await?;
    trusts(&client, 2.0).await?;

    // What does not exist is nobody's word, and is said aloud, once.
    for generation in [3, u64::MAX, 99] {
        talk.claim(generation).await?;
    }
    heard(ca, "no_such_generation", 3.0).await?;
    ensure!(ca.said("ack_ignored") && ca.said(&liar), "{}", ca.last_words());
    talk.claim(1).await?;
    heard(ca, "behind", 1.0).await?;
    outstanding(ca, &[&liar, &silent]).await?;
    let line = refused(ca, &["activate"]).await?;
    ensure!(line.contains("strand 2") && line.contains(&liar) && line.contains(&silent), "{line}");

    // It claims the present one, which it does not hold: that lets its own name through and no other.
    talk.claim(2).await?;
    outstanding(ca, &[&silent]).await?;
    let line = refused(ca, &["activate"]).await?;
    ensure!(line.contains("strand 1") && !line.contains(&liar), "{line}");
    rotate(ca, &["activate", "--break", &silent]).await?;

    // Under an SVID of the old root nothing can be said about the new one.
    talk.claim(2).await?;
    eventually("the honest ones stand under the new root", SOME_LIVES, async || {
        let seen = status(ca).await?;
        ensure!(seen["outstanding_ids"] == json!([liar, silent]), "{seen}");
        Ok(true)
    })
    .await?;
    let line = refused(ca, &["retire"]).await?;
    ensure!(line.contains(&liar) && line.contains(&silent), "{line}");
    Running::start(&client.pod, &listener).await?.talk().await?;

    // Whom it has harmed: it does not know the root that the honest one's SVID hangs under.
    let (configs, proof) = (liars.configs()?, &liars.issued.log_proof);
    let dialled = knock::dial(&lying, honest.v4(PORT), &configs, proof).await;
    let refusal = format!("{:#}", dialled.err().context("the liar trusts what it does not hold")?);
    ensure!(refusal.contains("does not verify"), "{refusal}");

    // And after the retirement it is refused by name wherever it comes.
    rotate(ca, &["retire", "--break", &liar, "--break", &silent]).await?;
    trusts(&honest, 3.0).await?;
    trusts(&client, 3.0).await?;
    let knocked = async {
        let mut link = knock::dial(&lying, honest.v4(PORT), &configs, proof).await?;
        knock::open(&mut link).await
    };
    ensure!(!matches!(knocked.await, Ok(Said::Accepted)), "a retired root counts");
    let watched = liars.watch(&lying).await.map(drop);
    ensure!(watched.is_err(), "the CA hears who stands under a retired root");
    Running::start(&client.pod, &listener).await?.talk().await?;
    drop(talk);
    Ok(())
}
