//! Servers with wrong certificates, dialled by a workload through its real sidecar: T7, T8, T10 and
//! the address binding. The workload must get a reset, never an answer, never plaintext.
//!
//! Never: a server that the configuration does not bind to an identity.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use myelin_lab::Pod;
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, Forge, now, svid, valid};
use myelin_tests::{Mesh, Options, Spec, Workload, declared_peer};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::stage::{GREETING, PORT, SOON};

const ID: &str = "spiffe://mesh.test/ns/test/sa/database";

struct Stage {
    mesh: Mesh,
    client: Workload,
    server: Pod,
    forge: Forge,
}

/// A client whose sidecar is told that the server is `ID` and speaks plain mTLS.
async fn stage() -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let server = mesh.pod("server")?;
    let peer = declared_peer(server.v4(), ID, &format!("port = {PORT}\nprotocol = \"mtls\""));
    let client = mesh.workload_of(Spec::new("client").tables(&peer)).await?;
    let forge = Forge::of(&mesh.ca).await?;
    Ok(Some(Stage { mesh, client, server, forge }))
}

impl Stage {
    fn to(&self) -> SocketAddr {
        SocketAddr::new(self.server.v4(), PORT)
    }

    /// Serves one connection with this certificate; what the client said comes back.
    async fn serve(&self, own: &Credential) -> Result<oneshot::Receiver<Vec<u8>>> {
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(own.chain.clone(), own.key.clone_key())?;
        let listener = self.server.tcp_listen(self.to()).await?;
        let (said, heard) = oneshot::channel();
        tokio::spawn(async move {
            let mut words = Vec::new();
            if let Ok((tcp, _)) = listener.accept().await
                && let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await
            {
                let mut buffer = [0; 64];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                words.extend_from_slice(&buffer[..read]);
                let _ = stream.write_all(GREETING).await;
                let _ = stream.shutdown().await;
            }
            let _ = said.send(words);
        });
        Ok(heard)
    }

    /// What the workload gets when it dials the server's address and says a canary.
    async fn dial(&self) -> Result<Vec<u8>> {
        let mut stream = self.client.pod.tcp_connect(self.to()).await?;
        stream.write_all(self.mesh.canary().as_bytes()).await?;
        let mut answer = Vec::new();
        tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.context("no end")??;
        Ok(answer)
    }

    async fn demand_refused(&self, name: &str, own: &Credential, word: &str) -> Result<()> {
        let before = self.client.metrics().await?.outcome("outbound", word);
        let heard = self.serve(own).await?;
        if let Ok(answer) = self.dial().await {
            bail!("{name}: the workload was answered {:?}", String::from_utf8_lossy(&answer));
        }
        self.client.outcome("outbound", word, before + 1.0).await.context(name.to_owned())?;
        let heard = tokio::time::timeout(Duration::from_secs(10), heard).await??;
        ensure!(heard.is_empty(), "{name}: the server heard {heard:?}");
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_is_whom_was_meant_is_reached() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let heard = stage.serve(&stage.forge.svid(ID, stage.server.addresses())?).await?;
    ensure!(stage.dial().await? == GREETING);
    ensure!(heard.await? == stage.mesh.canary().as_bytes());
    stage.mesh.demand_clean_wire().await?;
    Ok(())
}

/// T10
#[tokio::test]
async fn a_server_with_a_valid_svid_of_somebody_else_is_refused() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let other = "spiffe://mesh.test/ns/test/sa/database2";
    let own = stage.forge.svid(other, stage.server.addresses())?;
    stage.demand_refused("T10", &own, "wrong_peer").await?;
    stage.mesh.demand_clean_wire().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_at_an_address_that_its_svid_does_not_name_is_refused() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let own = stage.forge.svid(ID, &["10.77.0.200".parse()?])?;
    stage.demand_refused("address", &own, "wrong_address").await
}

/// T3, T7, T8 and time, as the dialer sees them.
#[tokio::test]
async fn a_server_with_a_certificate_of_the_wrong_shape_is_refused() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let addresses = stage.server.addresses();
    let foreign = stage.forge.svid("spiffe://other.test/ns/test/sa/database", addresses)?;
    stage.demand_refused("T3", &foreign, "wrong_trust_domain").await?;

    let mut params = svid(ID, addresses)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let clients_only = stage.forge.leaf(params)?;
    stage.demand_refused("T7", &clients_only, "wrong_usage").await?;

    let mut params = svid(ID, addresses)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    stage.demand_refused("T8", &stage.forge.leaf(params)?, "ca_as_leaf").await?;

    let mut params = svid(ID, addresses)?;
    valid(&mut params, now() - 7_200, now() - 60);
    stage.demand_refused("expired", &stage.forge.leaf(params)?, "expired").await
}

/// A meshed address where nobody speaks TLS: an error, never a try in plaintext.
#[tokio::test]
async fn a_server_that_speaks_no_tls_gets_no_plaintext_either() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let listener = stage.server.tcp_listen(stage.to()).await?;
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await?;
        tcp.write_all(b"220 welcome\r\n").await?;
        let mut heard = Vec::new();
        // However it ends: what was heard is the question.
        let _ = tcp.read_to_end(&mut heard).await;
        anyhow::Ok(heard)
    });
    ensure!(stage.dial().await.is_err(), "the workload was answered");
    let heard = server.await??;
    let canary = stage.mesh.canary().as_bytes();
    ensure!(!heard.windows(canary.len()).any(|window| window == canary), "plaintext: {heard:?}");
    Ok(())
}
