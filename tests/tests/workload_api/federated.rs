//! Bundles of foreign trust domains in the workload's hands: for SPIFFE libraries, and for an Envoy
//! that keeps the domains apart.
//!
//! Never: a foreign root that vouches for a name of ours.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use myelin_lab::{Proc, Stream};
use myelin_tests::ca::Ca;
use myelin_tests::federation::{federate, flags};
use myelin_tests::forge::Forge;
use myelin_tests::programs::{LIMIT, eventually, output};
use myelin_tests::{Mesh, Options, Spec, Workload};
use spiffe::{TrustDomain, X509Context};

use crate::envoy::{CLIENT_ID, PARTNER_ID, PORT, SOON, behind_envoy, envoy, served_to};
use crate::stage::{LIFETIME_SECONDS, connect, offering, python, socket};

const B: &str = "b.test";
const HOUR: Duration = Duration::from_secs(60 * 60);

struct Stage {
    mesh: Mesh,
    b_ca: Ca,
    web: Workload,
}

impl Stage {
    /// The sidecar's file names the other domain; its CA does not know it yet.
    async fn set(shape: impl FnOnce(Spec) -> Spec) -> Result<Option<Self>> {
        Self::set_for(Options::default(), shape).await
    }

    async fn set_for(options: Options, shape: impl FnOnce(Spec) -> Spec) -> Result<Option<Self>> {
        let options = Options { ca_flags: flags(), ..options };
        let Some(mesh) = Mesh::start(options).await? else { return Ok(None) };
        let b_ca = Ca::start_with(mesh.pod_of_ca("b-ca")?, B, mesh.dir(), HOUR, &flags()).await?;
        let mut spec = shape(offering(&mesh, "web", &[], "sds = true"));
        spec.federates_with = vec![B.to_owned()];
        let web = mesh.workload_of(spec).await?;
        Ok(Some(Self { mesh, b_ca, web }))
    }

    async fn federate(&self) -> Result<()> {
        federate(&self.mesh.ca, B, &self.b_ca, self.mesh.dir()).await.map(drop)
    }

    async fn part(&self) -> Result<()> {
        let said = self.mesh.ca.operate(&["federation", "remove", "--trust-domain", B]).await?;
        ensure!(said.contains("no longer"), "{said}");
        Ok(())
    }
}

/// The domains of a context, and whether the other one has the roots of its own CA.
async fn domains(context: &X509Context, b_ca: &Ca) -> Result<usize> {
    let bundles = context.bundle_set();
    if let Some(given) = bundles.get(&TrustDomain::new(B)?) {
        let given: Vec<Vec<u8>> =
            given.authorities().iter().map(|root| root.as_bytes().to_vec()).collect();
        let genuine = Forge::of(b_ca).await?.bundle()?;
        let genuine: Vec<Vec<u8>> = genuine.roots().map(|root| root.to_vec()).collect();
        ensure!(given == genuine, "other roots than its own");
    }
    Ok(bundles.len())
}

#[tokio::test]
async fn spiffe_libraries_get_foreign_bundles_while_the_domains_federate() -> Result<()> {
    let Some(stage) = Stage::set(|spec| spec).await? else { return Ok(()) };
    let socket = socket(&stage.mesh, "web");
    let client = connect(&socket).await?;
    let mut stream = client.stream_x509_contexts().await?;
    let mut next = async || -> Result<usize> {
        let context = tokio::time::timeout(SOON, stream.next()).await?;
        domains(&context.context("the stream ended")??, &stage.b_ca).await
    };
    ensure!(next().await? == 1, "not federated yet");
    stage.federate().await?;
    ensure!(next().await? == 2, "with its SVID");
    ensure!(client.fetch_x509_bundles().await?.len() == 2, "bundles alone");
    let said = output(python(&stage.web.pod, &stage.mesh, &["bundles"], &socket)?, LIMIT).await?;
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["bundle b.test 1", "bundle mesh.test 1"], "{said}");
    stage.part().await?;
    ensure!(next().await? == 1, "it is gone again");
    ensure!(client.fetch_x509_bundles().await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn an_envoy_that_asks_for_all_keeps_each_domains_names_to_its_own_roots() -> Result<()> {
    let Some(stage) = Stage::set(behind_envoy).await? else { return Ok(()) };
    let process = envoy(&stage.mesh, &stage.web, "ALL").await?;
    let (pod, at) = (stage.mesh.pod("stranger")?, stage.web.v4(PORT));
    let (ours, theirs) = (Forge::of(&stage.mesh.ca).await?, Forge::of(&stage.b_ca).await?);
    let client = ours.svid(CLIENT_ID, pod.addresses())?;
    let partner = theirs.svid(PARTNER_ID, pod.addresses())?;
    let partners_name = ours.svid(PARTNER_ID, pod.addresses())?;
    let clients_name = theirs.svid(CLIENT_ID, pod.addresses())?;
    let enters = async |own| served_to(own, &ours, &pod, at).await.is_ok();
    eventually("our client enters", SOON, async || Ok(enters(&client).await))
        .await
        .with_context(|| process.last_words())?;
    ensure!(!enters(&partner).await, "the domains do not federate yet");
    stage.federate().await?;
    eventually("the partner enters", SOON, async || Ok(enters(&partner).await))
        .await
        .with_context(|| process.last_words())?;
    // One domain's root vouches for no name of the other's.
    ensure!(!enters(&partners_name).await, "their name under our root");
    ensure!(!enters(&clients_name).await, "our name under their root");
    stage.part().await?;
    eventually("the partner is out", SOON, async || Ok(!enters(&partner).await)).await?;
    ensure!(enters(&client).await, "the twin: ours goes on");
    let metrics = stage.web.metrics().await?;
    let nack = [("call", "sds"), ("outcome", "nack")];
    ensure!(metrics.sum("myelin_workload_api_answers_total", &nack) == 0.0, "Envoy complained");
    Ok(())
}

#[tokio::test]
async fn an_envoy_that_asks_for_one_foreign_domain_lets_in_nobody_else() -> Result<()> {
    let Some(stage) = Stage::set(behind_envoy).await? else { return Ok(()) };
    stage.federate().await?;
    eventually("the bundle is held", SOON, async || {
        Ok(stage.web.metrics().await?.sum("myelin_foreign_bundles", &[]) > 0.5)
    })
    .await?;
    let process = envoy(&stage.mesh, &stage.web, "\"spiffe://b.test\"").await?;
    let (pod, at) = (stage.mesh.pod("stranger")?, stage.web.v4(PORT));
    let (ours, theirs) = (Forge::of(&stage.mesh.ca).await?, Forge::of(&stage.b_ca).await?);
    let partner = theirs.svid(PARTNER_ID, pod.addresses())?;
    let client = ours.svid(CLIENT_ID, pod.addresses())?;
    eventually("the partner enters", SOON, async || {
        served_to(&partner, &ours, &pod, at).await.map(|_| true)
    })
    .await
    .with_context(|| process.last_words())?;
    ensure!(served_to(&client, &ours, &pod, at).await.is_err(), "roots that were not asked for");
    stage.part().await?;
    eventually("the partner is out", SOON, async || {
        Ok(served_to(&partner, &ours, &pod, at).await.is_err())
    })
    .await?;
    let metrics = stage.web.metrics().await?;
    let nack = [("call", "sds"), ("outcome", "nack")];
    ensure!(metrics.sum("myelin_workload_api_answers_total", &nack) == 0.0, "Envoy complained");
    Ok(())
}

/// The SHA-256 of certificate and foreign root, in each answer so far.
fn answers(client: &Proc) -> Result<Vec<(String, String)>> {
    let said = client.text(Stream::Out);
    let lines = said.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["answer", "default", leaf, "spiffe://b.test", root] = words[..] else {
            bail!("{line}: not what was asked for")
        };
        Ok((leaf.to_owned(), root.to_owned()))
    });
    lines.collect()
}

#[tokio::test]
async fn a_stream_whose_foreign_domain_is_gone_loses_its_roots_and_goes_on_rotating() -> Result<()>
{
    let options = Options::lifetime(LIFETIME_SECONDS);
    let Some(stage) = Stage::set_for(options, |spec| spec).await? else { return Ok(()) };
    stage.federate().await?;
    eventually("the bundle is held", SOON, async || {
        Ok(stage.web.metrics().await?.sum("myelin_foreign_bundles", &[]) > 0.5)
    })
    .await?;
    let socket = socket(&stage.mesh, "web");
    let names = ["sds", "default", "spiffe://b.test"];
    let client = python(&stage.web.pod, &stage.mesh, &names, &socket)?.spawn()?;
    let genuine = Forge::of(&stage.b_ca).await?.bundle()?;
    let genuine = genuine.root_ids().next().context("a root")?.to_string();
    eventually("an answer", SOON, async || Ok(!answers(&client)?.is_empty()))
        .await
        .with_context(|| client.last_words())?;
    ensure!(answers(&client)?.iter().all(|(_, root)| *root == genuine), "other roots than its own");
    stage.part().await?;
    // Two rotations after the end, on the same stream.
    eventually("it goes on rotating without them", SOON, async || {
        ensure!(client.is_running(), "the stream has ended");
        let after = answers(&client)?.into_iter().skip_while(|(_, root)| *root == genuine);
        let leaves: Result<BTreeSet<String>> = after
            .map(|(leaf, root)| {
                ensure!(root != genuine, "the roots of a domain that is gone came back");
                Ok(leaf)
            })
            .collect();
        Ok(leaves?.len() >= 3)
    })
    .await
    .with_context(|| client.last_words())?;
    let metrics = stage.web.metrics().await?;
    let refused = [("call", "sds"), ("outcome", "invalid_argument")];
    ensure!(metrics.sum("myelin_workload_api_answers_total", &refused) == 0.0);
    ensure!(stage.web.log()?.contains("it is given the root of nobody"), "nobody said so");
    Ok(())
}
