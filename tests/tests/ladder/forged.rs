//! T60: somebody can write the CA's store, and may even hold the key of a root that was retired. He
//! adds a root, or moves the ladder. The CA believes none of it and says so, sidecars never hear of
//! it, and the next true step heals the store.
//!
//! Never: a forger with the key of a root that is trusted; who has that is the CA.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use myelin_ca::journal::{Batch, Blob, BundleRecord, CURRENT, Hex, Journal, RungName, step_name};
use myelin_ca::store::embedded::Embedded;
use myelin_identity::bundle::{RootId, SignedStep};
use myelin_tests::forge::Forge;
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SigningKey as _};

use crate::{
    LIFETIME, PORT, Running, SOME_LIVES, acknowledged, generation, rotate, status, trusts,
};

/// A root of the forger's own.
struct Rogue {
    key: KeyPair,
    root: Vec<u8>,
}

impl Rogue {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key)?.der().to_vec();
        Ok(Self { key, root })
    }
}

/// A record that adds `rogue`'s root to what is in force, signed by this root with this key.
fn adding(genuine: &BundleRecord, rogue: &[u8], signer: &[u8], key: &KeyPair) -> BundleRecord {
    let mut added = genuine.clone();
    added.roots_der.push(Blob(rogue.to_vec()));
    (added.number, added.generation) = (genuine.number + 1, genuine.generation + 1);
    added.before = Hex(SignedStep::try_from(genuine).unwrap().step.digest().to_vec());
    added.signer = Hex(RootId::of(signer).as_bytes().to_vec());
    let bytes = SignedStep::try_from(&added).unwrap().step.signed_bytes();
    added.signature = Blob(key.sign(&bytes).unwrap());
    added
}

async fn genuine(mesh: &Mesh) -> Result<BundleRecord> {
    let journal = journal(mesh)?;
    let entry = journal.read::<BundleRecord>(CURRENT).await?.context("no trust record")?;
    journal.close().await;
    Ok(entry.record)
}

/// Writes past every rule into the store of a CA that is down.
async fn put(mesh: &Mesh, record: &BundleRecord) -> Result<()> {
    let journal = journal(mesh)?;
    let mut batch = Batch::default();
    batch.overwrite(CURRENT, record);
    batch.overwrite(&step_name(record.number), record);
    let _ = journal.commit(batch).await?;
    journal.close().await;
    Ok(())
}

fn journal(mesh: &Mesh) -> Result<Journal> {
    Ok(Journal::new(Arc::new(Embedded::open(&mesh.ca.data().join("store.redb"))?)))
}

#[tokio::test]
async fn a_store_that_was_written_to_moves_no_ladder_and_adds_no_root() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    // The forger takes the first root's key while it is one, and it is retired then.
    let robbed = Forge::of(&mesh.ca).await?;
    let retired_key = KeyPair::try_from(robbed.keys[0].as_slice())?;
    for asked in ["prepare", "activate", "retire"] {
        acknowledged(&mesh.ca).await?;
        rotate(&mesh.ca, &[asked]).await?;
    }
    trusts(&server, 3.0).await?;
    trusts(&client, 3.0).await?;

    mesh.ca.kill9();
    let (held, rogue) = (genuine(&mesh).await?, Rogue::new()?);
    let moved = BundleRecord { rung: RungName::Activated, ..held.clone() };
    let forgeries = [
        ("the ladder is moved", moved),
        ("a root vouches for itself", adding(&held, &rogue.root, &rogue.root, &rogue.key)),
        ("a retired root signs", adding(&held, &rogue.root, &robbed.root, &retired_key)),
    ];
    for (what, forged) in forgeries {
        put(&mesh, &forged).await?;
        mesh.ca.up().await?;
        let seen = status(&mesh.ca).await?;
        ensure!(seen["rung"] == "settled" && seen["generation"] == 3, "{what}: {seen}");
        ensure!(seen["ignored"].is_string(), "{what}: nobody said anything: {seen}");
        ensure!(mesh.ca.said("is not believed"), "{what}: no alarm in the log");
        let alarm = mesh.ca.metrics().await?;
        let alarm = alarm.sum("myelin_ca_trust_ignored_total", &[("reason", "unsigned")]);
        ensure!(alarm >= 1.0, "{what}: not counted");
        // Renewals go on under what is believed, and nobody hears of the other root.
        let issued =
            mesh.ca.metrics().await?.sum("myelin_ca_issued_total", &[("outcome", "issued")]);
        eventually("SVIDs are renewed", SOME_LIVES, async || {
            let now = mesh.ca.metrics().await?;
            Ok(now.sum("myelin_ca_issued_total", &[("outcome", "issued")]) >= issued + 1.0)
        })
        .await?;
        ensure!(generation(&server).await? == 3.0 && generation(&client).await? == 3.0, "{what}");
        Running::start(&client.pod, &listener).await.context(what)?.talk().await?;
        mesh.ca.kill9();
    }
    mesh.ca.up().await?;
    rotate(&mesh.ca, &["prepare"]).await?;
    ensure!(status(&mesh.ca).await?["ignored"].is_null(), "the true step heals the store");
    trusts(&server, 4.0).await?;
    let roots = mesh.ca.bundle_pem().await?.matches("BEGIN").count();
    ensure!(roots == 2, "{roots} roots");
    Ok(())
}
