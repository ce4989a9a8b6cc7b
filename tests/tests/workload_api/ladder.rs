//! A root rotation with a workload that holds an SVID of its own: its sidecar speaks for it, and does
//! not say that it stands under the new root before its workload does.
//!
//! Never: a move that is forced.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_identity::bundle::{RootId, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::verify::{Role, peer};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, forge};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use spiffe::WorkloadApiClient;

use crate::stage::{connect, offering, socket};

/// Two renewals fit into what this test waits for.
const LIFETIME: u64 = 20;
/// Longer than every wait for renewals of such lives.
const SOME_LIVES: Duration = Duration::from_secs(90);

async fn rotate(mesh: &Mesh, asked: &str) -> Result<Value> {
    Ok(serde_json::from_str(&mesh.ca.operate(&["rotate", asked, "--json"]).await?)?)
}

/// The root above the SVID that the workload would get now, and how many roots it is told of.
async fn stands(client: &WorkloadApiClient) -> Result<(RootId, usize)> {
    let context = client.fetch_x509_context().await?;
    let svid = context.default_svid().context("no SVID")?;
    let told = context.bundle_set().get(svid.spiffe_id().trust_domain()).context("no bundle")?;
    let roots: Vec<_> = told
        .authorities()
        .iter()
        .map(|root| CertificateDer::from(root.as_bytes().to_vec()))
        .collect();
    let (domain, count) = (TrustDomain::parse("mesh.test")?, roots.len());
    let bundle = TrustBundle::new(domain, 1, roots)?;
    let chain = svid.cert_chain().iter();
    let chain: Vec<_> = chain.map(|der| CertificateDer::from(der.as_bytes().to_vec())).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(forge::now()));
    Ok((peer(&chain, &bundle, now, Role::Client)?.root, count))
}

#[tokio::test]
async fn a_root_is_retired_only_when_the_workloads_own_svids_have_left_it() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let web = mesh.workload_of(offering(&mesh, "web", &[], "")).await?;
    let client = connect(&socket(&mesh, "web")).await?;
    let (old, _) = stands(&client).await?;
    for (asked, roots) in [("prepare", 2), ("activate", 2)] {
        rotate(&mesh, asked).await?;
        eventually("the sidecar has acknowledged", SOME_LIVES, async || {
            Ok(rotate(&mesh, "status").await?["outstanding"] == 0)
        })
        .await
        .with_context(|| web.last_words())?;
        // At once: the gate is open, so the workload must be where its sidecar says it is.
        let (root, told) = stands(&client).await?;
        ensure!(told == roots, "after {asked} the workload is told of {told} roots");
        ensure!((root != old) == (asked == "activate"), "after {asked} it stands under {root}");
    }
    rotate(&mesh, "retire").await?;
    eventually("the workload is told of the new root alone", SOME_LIVES, async || {
        Ok(stands(&client).await?.1 == 1)
    })
    .await?;
    ensure!(stands(&client).await?.0 != old);
    Ok(())
}
