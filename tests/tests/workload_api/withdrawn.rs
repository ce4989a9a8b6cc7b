//! An operator revokes an ID: the workload's own SVID goes with it, at its peers, in what runs, and
//! on the socket.
//!
//! Never: a deny list that the test wrote itself.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::verify::PeerVerifier;
use myelin_lab::Pod;
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, Forge};
use myelin_tests::{Mesh, Options, Spec};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use spiffe::X509Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{WEB, connect, offering, socket};

const PORT: u16 = 7_000;
/// What the documentation promises from the operator's command to the end of a running use.
const PROMISED: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(15);

/// What the socket gave to the workload, in the test's hands.
fn credential(context: &X509Context) -> Result<Credential> {
    let svid = context.default_svid().context("no SVID")?;
    let chain = svid.cert_chain().iter();
    let chain = chain.map(|der| CertificateDer::from(der.as_bytes().to_vec())).collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    Ok(Credential { chain, key: PrivateKeyDer::Pkcs8(key) })
}

/// A use as the workload itself makes it, past its sidecar, with a word each way.
async fn call(
    own: &Credential,
    roots: &Arc<TrustBundle>,
    from: &Pod,
    listener: &TcpListener,
) -> Result<(TlsStream<TcpStream>, TcpStream)> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(Arc::clone(roots))))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())?;
    let to: SocketAddr = listener.local_addr()?;
    let talk = async {
        let tcp = from.tcp_connect(to).await?;
        let name = ServerName::IpAddress(to.ip().into());
        let mut dialled = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        dialled.write_all(b"hello").await?;
        let (mut served, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            read = dialled.read_u8() => anyhow::bail!("not let in: {read:?}"),
        };
        let mut heard = [0; 5];
        served.read_exact(&mut heard).await?;
        served.write_all(b"there").await?;
        dialled.read_exact(&mut heard).await?;
        Ok((dialled, served))
    };
    tokio::time::timeout(SOON, talk).await.context("neither answered nor refused")?
}

#[tokio::test]
async fn a_revoked_id_takes_the_workloads_own_svid_with_it() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let port = format!("[[inbound.port]]\nport = {PORT}\nplain_mtls = true\n");
    let server = mesh.workload_of(Spec::new("server").tables(&port)).await?;
    // The test's own connections are not captured: they are the workload's, which ends TLS itself.
    let past_the_sidecar = |name| {
        let mut spec = offering(&mesh, name, &[], "");
        let user = nix::unistd::geteuid().to_string();
        spec.intercept = vec!["--exclude-uid".to_owned(), user];
        spec
    };
    let web = mesh.workload_of(past_the_sidecar("web")).await?;
    let bystander = mesh.workload_of(past_the_sidecar("bystander")).await?;
    let roots = Forge::of(&mesh.ca).await?.bundle()?;
    let client = connect(&socket(&mesh, "web")).await?;
    let mut stream = client.stream_x509_contexts().await?;
    let own = credential(&stream.next().await.context("the stream ended")??)?;
    let client = connect(&socket(&mesh, "bystander")).await?;
    let others = credential(&client.fetch_x509_context().await?)?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let (mut dialled, mut served) = call(&own, &roots, &web.pod, &listener).await?;
    let (mut going_on, _held) = call(&others, &roots, &bystander.pod, &listener).await?;

    let said = mesh.ca.operate(&["revoke", "--id", WEB, "--reason", "a test"]).await?;
    ensure!(said.contains("is revoked until"), "{said}");
    let ended = tokio::time::timeout(PROMISED, async {
        let (mut one, mut two) = ([0; 1], [0; 1]);
        tokio::join!(dialled.read(&mut one), served.read(&mut two))
    });
    let (at_web, at_server) = ended.await.context("the use still runs")?;
    ensure!(at_web.is_err() && at_server.is_err(), "ended, not cut: {at_web:?} {at_server:?}");
    server.outcome("inbound", "withdrawn", 1.0).await?;
    ensure!(call(&own, &roots, &web.pod, &listener).await.is_err(), "a new use");
    server.outcome("inbound", "denied", 1.0).await?;
    let over = tokio::time::timeout(PROMISED, stream.next()).await;
    let over = over.with_context(|| format!("the stream goes on: {}", web.last_words()))?;
    let said = over.context("an end without a word")?.err().context("another SVID")?.to_string();
    ensure!(said.contains("permission denied") && said.contains("withdrawn"), "{said}");
    // The twin: nobody else is concerned, in what runs and in what is new.
    let read = tokio::time::timeout(Duration::from_millis(100), going_on.read_u8()).await;
    ensure!(read.is_err(), "the other use ended: {read:?}");
    call(&others, &roots, &bystander.pod, &listener).await.map(drop)
}
