//! The two independent clients: SVID, bundle, rotation.
//!
//! Never: a check that the client library itself would have made.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::verify::{Role, peer};
use myelin_tests::programs::{LIMIT, output};
use myelin_tests::{Mesh, Options, forge};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use spiffe::X509Context;

use crate::stage::{LIFETIME_SECONDS, WEB, connect, offering, python, socket};

/// Two renewals and what a loaded machine adds.
const SOON: Duration = Duration::from_secs(60);

/// The leaf's serial, once chain, key and bundle have been seen to belong together.
fn judged(context: &X509Context) -> Result<String> {
    let svid = context.default_svid().context("no SVID")?;
    ensure!(svid.spiffe_id().to_string() == WEB, "{}", svid.spiffe_id());
    let domain = TrustDomain::parse("mesh.test")?;
    let given = context.bundle_set().get(svid.spiffe_id().trust_domain());
    let given = given.context("no bundle")?;
    let roots = given.authorities().iter();
    let roots = roots.map(|root| CertificateDer::from(root.as_bytes().to_vec())).collect();
    let bundle = TrustBundle::new(domain, 1, roots)?;
    let chain: Vec<_> =
        svid.cert_chain().iter().map(|der| CertificateDer::from(der.as_bytes().to_vec())).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(forge::now()));
    for role in [Role::Client, Role::Server] {
        peer(&chain, &bundle, now, role)?;
    }
    let leaf = myelin_identity::svid::Svid::from_chain(chain)?;
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    let pair = KeyPair::try_from(&key)?;
    ensure!(
        pair.subject_public_key_info() == leaf.leaf().key.as_bytes(),
        "the key is not the certificate's"
    );
    Ok(leaf.serial().to_string())
}

#[tokio::test]
async fn the_spiffe_crate_gets_svid_and_bundle_and_sees_rotations() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME_SECONDS)).await? else {
        return Ok(());
    };
    let web = mesh.workload_of(offering(&mesh, "web", &[], "")).await?;
    let client = connect(&socket(&mesh, "web")).await?;
    let bundles = client.fetch_x509_bundles().await?;
    ensure!(bundles.len() == 1, "one trust domain");
    let mut stream = client.stream_x509_contexts().await?;
    let mut serials = BTreeSet::new();
    for _ in 0..3 {
        let context = tokio::time::timeout(SOON, stream.next()).await?;
        let context = context.context("the stream ended")??;
        ensure!(serials.insert(judged(&context)?), "each update is another SVID");
    }
    // Nobody but the sidecar holds what the mesh's own connections are made with.
    let log = web.log()?;
    let own: Vec<&str> = log.lines().filter(|line| line.contains("SVID taken over")).collect();
    let (workloads, sidecars): (Vec<&str>, Vec<&str>) =
        own.into_iter().partition(|line| line.contains("the workload's own"));
    for serial in &serials {
        ensure!(workloads.iter().any(|line| line.contains(serial)), "{serial} in {log}");
        ensure!(!sidecars.iter().any(|line| line.contains(serial)), "{serial} is the sidecar's");
    }
    ensure!(mesh.ca.metrics().await?.sum("myelin_ca_alarms_total", &[]) == 0.0, "no alarm");
    Ok(())
}

#[tokio::test]
async fn the_python_client_gets_svid_and_bundle_and_sees_a_rotation() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME_SECONDS)).await? else {
        return Ok(());
    };
    let web = mesh.workload_of(offering(&mesh, "web", &[], "")).await?;
    let socket = socket(&mesh, "web");
    let said = output(python(&web.pod, &mesh, &["bundles"], &socket)?, LIMIT).await?;
    ensure!(said.trim() == "bundle mesh.test 1", "{said}");
    let said = output(python(&web.pod, &mesh, &["watch", "2"], &socket)?, LIMIT).await?;
    let updates: Vec<&str> = said.lines().collect();
    ensure!(updates.len() == 2 && updates[0] != updates[1], "{said}");
    ensure!(updates.iter().all(|line| line.starts_with(&format!("svid {WEB} "))), "{said}");
    let metrics = web.metrics().await?;
    let served = [("call", "x509_svid"), ("outcome", "served")];
    ensure!(metrics.sum("myelin_workload_api_answers_total", &served) >= 2.0);
    Ok(())
}
