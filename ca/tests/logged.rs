//! That every certificate of a real CA comes with a proof which its own chain confirms: T59 at the
//! CA's side.
//!
//! Never: looks into the CA's memory for a proof; only what callers get counts.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use harness::*;
use myelin_identity::log::{Chain, LogProof, LogRefusal, Verified, Witnesses, named_log, verify};

fn judge(ca: &TestCa, held: &Held, proof: &[u8]) -> Result<Verified, LogRefusal> {
    let (leaf, intermediate) = (&held.response.chain[0], &held.response.chain[1]);
    let bundle = ca.bundle();
    let root = bundle.roots().next().unwrap();
    verify(proof, &Chain { leaf, intermediate, root }, None, &Witnesses::default())
}

#[tokio::test]
async fn every_svid_comes_with_a_proof_that_its_chain_confirms() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let (host, intent) = (Host::new(), Intent::new());
    let held = issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    let first = judge(&ca, &held, &held.response.log_proof).unwrap();
    // The CA's own SVID is in the log before it.
    assert_eq!((first.leaf_index, first.issuer_index), (1, 0));
    let named = named_log(&held.response.chain[1]).unwrap();
    assert_eq!(named.as_ref(), Some(&first.leaf.log));
    assert!(held.response.log_proof.len() < 1024, "{}", held.response.log_proof.len());

    // The lost reply: the same certificate, proven at the same place.
    let again = issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    assert_eq!(again.response.chain, held.response.chain);
    let second = judge(&ca, &again, &again.response.log_proof).unwrap();
    assert_eq!(second.leaf_index, first.leaf_index);

    let (_, other) = join(&ca, WEB, "10.0.0.8").await;
    assert_eq!(judge(&ca, &other, &other.response.log_proof).unwrap().leaf_index, 2);
    // Its proof is nobody else's.
    let refused = judge(&ca, &other, &held.response.log_proof).unwrap_err();
    assert_eq!(refused.word(), "log_proof_invalid");
}

#[tokio::test]
async fn log_goes_on_after_a_restart_and_proves_what_was_issued_before() {
    let ca = TestCa::start().await;
    let token = ca.token(WEB, "10.0.0.7").await;
    let (host, intent) = (Host::new(), Intent::new());
    let held = issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    let before = judge(&ca, &held, &held.response.log_proof).unwrap();
    let ca = ca.restart().await;
    let again = issue(&ca.target(), &host, By::Token(&token), &intent).await.unwrap();
    let after = judge(&ca, &again, &again.response.log_proof).unwrap();
    assert_eq!(after.leaf_index, before.leaf_index);
    assert_eq!(after.leaf.log, before.leaf.log);
    assert!(after.leaf.size > before.leaf.size);
    assert_eq!(after.issuer, before.issuer);
}

#[tokio::test]
async fn fifty_certificates_at_once_are_fifty_entries_with_fifty_proofs() {
    let ca = TestCa::start().await;
    let joins = (0..50).map(|n| {
        let ca = &ca;
        async move { join(ca, WEB, &format!("10.0.1.{n}")).await.1 }
    });
    let all = futures_util::future::join_all(joins).await;
    let mut indices: Vec<u64> = all
        .iter()
        .map(|held| judge(&ca, held, &held.response.log_proof).unwrap().leaf_index)
        .collect();
    indices.sort_unstable();
    assert_eq!(indices, (1..51).collect::<Vec<_>>());
    // Batched: fewer checkpoints than certificates.
    let mut checkpoints: Vec<Vec<u8>> = all
        .iter()
        .map(|held| LogProof::decode(&held.response.log_proof).unwrap().leaf.checkpoint)
        .collect();
    checkpoints.sort_unstable();
    checkpoints.dedup();
    assert!(checkpoints.len() <= 25, "{}", checkpoints.len());
}

/// The real command, beside the server.
async fn replay(ca: &TestCa) -> (serde_json::Value, Option<i32>) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_myelin-ca"));
    command.args(["log", "verify", "--json", "--data"]).arg(ca.directory.path().join("data"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (found, output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_a_server_that_runs_and_issues_is_replayed_and_its_damage_is_named() {
    let ca = TestCa::start().await;
    let (host, mut held) = join(&ca, WEB, "10.0.0.7").await;
    let (target, (ended, on)) = (ca.target(), tokio::sync::watch::channel(false));
    let busy = tokio::spawn(async move {
        while !*on.borrow() {
            held = issue(&target, &host, By::Renewal(&held), &Intent::new()).await.unwrap();
        }
    });
    let (mut before, mut grown) = (0, 0);
    while grown < 5 {
        let (found, code) = replay(&ca).await;
        assert_eq!(
            (found["damages"].as_array().map(Vec::len), code),
            (Some(0), Some(0)),
            "{found}"
        );
        let entries = found["entries"].as_u64().unwrap();
        assert!(entries >= before, "{found}");
        grown += u32::from(entries > before);
        before = entries;
        assert_eq!(found["unclaimed"], 0, "{found}");
    }
    ended.send(true).unwrap();
    busy.await.unwrap();
    // Whole bundles: the first is never written again.
    for net in 1..6 {
        let addresses: Vec<String> = (0..52).map(|n| format!("10.0.{net}.{n}")).collect();
        let joins = addresses.iter().map(|address| join(&ca, WEB, address));
        futures_util::future::join_all(joins).await;
    }
    let tile = ca.directory.path().join("data/log/tile/0/000");
    let mut hashes = std::fs::read(&tile).unwrap();
    hashes[0] ^= 1;
    std::fs::write(&tile, hashes).unwrap();
    let (found, code) = replay(&ca).await;
    assert_eq!(code, Some(1));
    let named = "tile/entries/000: entry 0 is not the one of tile/0/000";
    assert_eq!(found["damages"], serde_json::json!([named]));
}
