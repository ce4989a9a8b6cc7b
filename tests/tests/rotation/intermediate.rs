//! The issuing intermediate is renewed at half of its life, unattended, while the mesh is at work: its
//! life is made short here, by the CA's own rooms on its own store while it is down.
//!
//! Never: an operator's command, or a sidecar that is told anything.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_ca::datadir::{DataDir, read_secret};
use myelin_ca::journal::{Batch, Blob, IssuerRecord, Journal, ROOT};
use myelin_ca::log::Which;
use myelin_ca::replica::ReplicaId;
use myelin_ca::rotation::{issuing_name, names};
use myelin_ca::signer::{SealedIssuer, Signer, Vault};
use myelin_ca::store::embedded::Embedded;
use myelin_ca::template::{IssuerTemplate, Serial, Validity};
use myelin_identity::seal::SealKey;
use myelin_tests::ca::Ca;
use myelin_tests::forge::now;
use myelin_tests::programs::eventually;
use myelin_tests::running::Running;
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, Workload, http};
use serde_json::Value;
use tokio::time::sleep;

/// Lives of SVIDs, and of the intermediate that is put in the place of the first one.
const LIFETIME: u64 = 12;
const ISSUER_LIFETIME: u64 = 60;
const PORT: u16 = 7_000;
/// Longer than either.
const SOON: Duration = Duration::from_secs(120);

fn issuer(record: &IssuerRecord) -> SealedIssuer {
    let (certificate_der, sealed_key) =
        (record.certificate_der.0.clone(), record.sealed_key.0.clone());
    SealedIssuer { certificate_der, sealed_key }
}

/// Puts an intermediate of this life, under the same root, in the place of a CA's that is down.
async fn shorten(ca: &Ca, from: u64) -> Result<()> {
    let data = DataDir::open(ca.data())?;
    let vault = Vault::sealed(SealKey::from_bytes(*read_secret(&data.default_seal_key())?));
    let journal = Journal::new(Arc::new(Embedded::open(&data.store())?));
    let replica = ReplicaId::open_or_make(ca.data(), ReplicaId::from_bytes([0; 8]))?;
    let root = journal.page::<IssuerRecord>(ROOT, None).await?.pop().context("no root")?;
    let root = Signer::open(&issuer(&root.record), &vault)?;
    let template = IssuerTemplate {
        common_name: "Myelin issuing CA of mesh.test".to_owned(),
        trust_domain: "mesh.test".to_owned(),
        serial: Serial::from_random([0x17; 16]),
        validity: Validity { not_before: from, not_after: from + ISSUER_LIFETIME },
        path_length: Some(0),
        extensions: names(&journal, Which::Issuing(&replica)).await?,
    };
    let (_, sealed) = root.make_issuer(&template, &vault)?;
    let mut batch = Batch::default();
    let record = IssuerRecord {
        certificate_der: Blob(sealed.certificate_der),
        sealed_key: Blob(sealed.sealed_key),
    };
    batch.overwrite(&issuing_name(&replica), &record);
    let _ = journal.commit(batch).await?;
    journal.close().await;
    Ok(())
}

/// When the present intermediate ends, as the operator sees it.
async fn ends(ca: &Ca) -> Result<u64> {
    let status: Value = serde_json::from_str(&ca.operate(&["rotate", "status", "--json"]).await?)?;
    status["intermediate_not_after"].as_u64().with_context(|| format!("{status}"))
}

async fn renewals(of: &Workload) -> Result<f64> {
    Ok(of.metrics().await?.sum("myelin_renewals_total", &[("outcome", "renewed")]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intermediate_is_renewed_at_half_of_its_life_and_nobody_notices() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    mesh.ca.kill9();
    // A quarter of its life is over already: what is left of the half is short.
    let from = now() - ISSUER_LIFETIME / 4;
    shorten(&mesh.ca, from).await?;
    mesh.ca.up().await?;
    let (half, end) = (from + ISSUER_LIFETIME / 2, from + ISSUER_LIFETIME);
    ensure!(ends(&mesh.ca).await? == end, "the CA did not take the short one");

    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let pids = (server.pid(), client.pid(), mesh.ca.pid());
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let mut all_the_while = Running::start(&client.pod, &listener).await?;
    let seen = ends(&mesh.ca).await?;
    ensure!(now() > half || seen == end, "renewed before half of its life: {seen}");

    // Until the old one has ended, and the SVIDs were renewed twice under the new one.
    let (mut served, mut renewed, mut renewals_then) = (0, None, (0.0, 0.0));
    loop {
        let page = http::request(&client.pod, server.v4(80), "GET", "/page").await;
        let page = page.with_context(|| format!("request {served}: {}", client.last_words()))?;
        ensure!(page.status == 200, "request {served}: {}", page.status);
        served += 1;
        if renewed.is_none() && ends(&mesh.ca).await? != end {
            renewed = Some(now());
            renewals_then = (renewals(&server).await?, renewals(&client).await?);
        }
        let twice = renewals(&server).await? >= renewals_then.0 + 2.0
            && renewals(&client).await? >= renewals_then.1 + 2.0;
        if renewed.is_some() && twice && now() > end + 2 {
            break;
        }
        ensure!(now() < end + SOON.as_secs(), "renewed at {renewed:?}, half at {half}");
        sleep(Duration::from_millis(100)).await;
    }
    let at = renewed.context("never renewed")?;
    ensure!((half..end).contains(&at), "renewed at {at}, half of its life was at {half}");
    ensure!(served > 50, "only {served} requests");
    all_the_while.talk().await?;
    ensure!((server.pid(), client.pid(), mesh.ca.pid()) == pids, "somebody was restarted");
    // The new one is good for newcomers, and is what a restart finds.
    let until = ends(&mesh.ca).await?;
    mesh.ca.kill9();
    mesh.ca.up().await?;
    ensure!(ends(&mesh.ca).await? == until);
    let newcomer = mesh.workload("newcomer").await?;
    eventually("a newcomer is served", SOON, async || {
        Running::start(&newcomer.pod, &listener).await?.talk().await?;
        Ok(true)
    })
    .await?;
    let roots = mesh.ca.bundle_pem().await?.matches("BEGIN").count();
    ensure!(roots == 1, "{roots} roots: nobody has moved the ladder");
    mesh.demand_clean_wire().await.map(drop)
}
