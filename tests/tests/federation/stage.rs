//! The stage of this suite: domain `mesh.test` with workload `a`, domain `b.test` with workload
//! `b`, both CAs with bundle endpoints that know each other.
//!
//! Never: a bundle that was carried by hand but the one that recognises the endpoint.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::Pod;
use myelin_tests::ca::Ca;
use myelin_tests::mesh::TRUST_DOMAIN;
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Spec, Workload, declared_peer, federation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const B: &str = "b.test";
/// Where the policies of `a` and `b` name each other.
pub(crate) const PORT: u16 = 7_000;
/// Where no policy names anybody.
pub(crate) const OWN_PORT: u16 = 7_001;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// As DESIGN says: what is withdrawn ends within five seconds.
pub(crate) const WITHDRAWN_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    pub(crate) a: Workload,
    pub(crate) b: Workload,
    pub(crate) b_ca: Ca,
    pub(crate) mesh: Mesh,
}

pub(crate) fn a_id() -> String {
    "spiffe://mesh.test/ns/test/sa/a".to_owned()
}

pub(crate) fn b_id() -> String {
    "spiffe://b.test/ns/test/sa/b".to_owned()
}

/// Both domains, not federated yet.
pub(crate) async fn prepare() -> Result<Option<Stage>> {
    prepare_with(HOUR, &[]).await
}

/// The same, where SVIDs of the second domain live for so long and its CA has these flags as well.
async fn prepare_with(b_life: Duration, b_flags: &[&str]) -> Result<Option<Stage>> {
    let options = Options { ca_flags: federation::flags(), ..Options::default() };
    let Some(mesh) = Mesh::start(options).await? else { return Ok(None) };
    let mut flags = federation::flags();
    flags.extend(b_flags.iter().map(|flag| (*flag).to_owned()));
    let b_ca = Ca::start_with(mesh.pod_of_ca("b-ca")?, B, mesh.dir(), b_life, &flags).await?;
    let (a_pod, b_pod) = (mesh.pod("a")?, mesh.pod("b")?);
    let (with_b, with_a) = (vec![B.to_owned()], vec![TRUST_DOMAIN.to_owned()]);
    let a_spec =
        Spec { federates_with: with_b.clone(), federates_unlogged: with_b, ..Spec::new("a") }
            .tables(&tables(&b_id(), &b_pod));
    let b_spec = Spec {
        trust_domain: B.to_owned(),
        federates_with: with_a.clone(),
        federates_unlogged: with_a,
        ..Spec::new("b")
    }
    .tables(&tables(&a_id(), &a_pod));
    let a = mesh.prepare_in(a_pod, &mesh.ca, a_spec).await?;
    let b = mesh.prepare_in(b_pod, &b_ca, b_spec).await?;
    a.run().await?;
    b.run().await?;
    Ok(Some(Stage { a, b, b_ca, mesh }))
}

/// Both domains, federated both ways, and both sidecars know it.
pub(crate) async fn federated() -> Result<Option<Stage>> {
    federated_with(HOUR, &[]).await
}

/// The same; see [`prepare_with`].
pub(crate) async fn federated_with(b_life: Duration, b_flags: &[&str]) -> Result<Option<Stage>> {
    let Some(stage) = prepare_with(b_life, b_flags).await? else { return Ok(None) };
    federate(&stage.mesh, &stage.mesh.ca, B, &stage.b_ca).await?;
    federate(&stage.mesh, &stage.b_ca, TRUST_DOMAIN, &stage.mesh.ca).await?;
    for workload in [&stage.a, &stage.b] {
        holds(workload, 1.0).await?;
    }
    Ok(Some(stage))
}

/// `ca` federates with the domain of `other`.
pub(crate) async fn federate(mesh: &Mesh, ca: &Ca, domain: &str, other: &Ca) -> Result<String> {
    federation::federate(ca, domain, other, mesh.dir()).await
}

/// Waits until the sidecar holds so many foreign bundles.
pub(crate) async fn holds(workload: &Workload, count: f64) -> Result<()> {
    let what = format!("{} holds {count} foreign bundles", workload.spec.name);
    eventually(&what, WITHDRAWN_WITHIN, async || {
        Ok(workload.metrics().await?.sum("myelin_foreign_bundles", &[]) == count)
    })
    .await
}

/// Each names the other: who may enter, and whom to expect where.
fn tables(other: &str, pod: &Pod) -> String {
    let peers = pod.addresses().iter().map(|address| declared_peer(*address, other, ""));
    let peers: String = peers.collect();
    let port = format!("[[inbound.port]]\nport = {PORT}\nplain_mtls = true\n");
    format!(
        "{port}[[inbound.allow]]\nname = \"partner\"\nports = [{PORT}]\nids = [\"{other}\"]\n{peers}"
    )
}

/// A connection from one workload to the other, seen at both ends, with a word each way.
pub(crate) async fn call(
    from: &Workload,
    to: &Workload,
    address: SocketAddr,
) -> Result<(TcpStream, TcpStream)> {
    let listener = to.pod.tcp_listen(address).await?;
    let mut dialled = from.pod.tcp_connect(address).await?;
    let accepted = tokio::time::timeout(Duration::from_secs(10), listener.accept()).await;
    let (mut served, _) = accepted
        .with_context(|| format!("nobody came: {}\n{}", from.last_words(), to.last_words()))??;
    let mut heard = [0; 5];
    dialled.write_all(b"hello").await?;
    served.read_exact(&mut heard).await?;
    served.write_all(b"there").await?;
    dialled.read_exact(&mut heard).await?;
    ensure!(&heard == b"there");
    Ok((dialled, served))
}

/// A connection that must come to nothing.
pub(crate) async fn refused(from: &Workload, address: SocketAddr) -> Result<()> {
    // The reset may come before the dial has returned.
    let Ok(mut dialled) = from.pod.tcp_connect(address).await else { return Ok(()) };
    let read = tokio::time::timeout(Duration::from_secs(10), dialled.read(&mut [0; 1])).await;
    ensure!(read.context("neither refused nor answered")?.is_err(), "it was let in");
    Ok(())
}
