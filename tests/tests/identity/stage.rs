//! What every test of this suite stands on: a workload with a sidecar, a pod without one, the CA's
//! own key in the wrong hands, and TLS clients that can be told to misbehave.
//!
//! Never: a verdict; the suites give those.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use myelin_identity::verify::PeerVerifier;
use myelin_lab::Pod;
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, Forge};
use myelin_tests::{Mesh, Options, Spec, Workload};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

pub(crate) const PORT: u16 = 7_000;
pub(crate) const SOON: Duration = Duration::from_secs(15);
pub(crate) const GREETING: &[u8] = b"the workload answers";

pub(crate) struct Stage {
    pub(crate) mesh: Mesh,
    pub(crate) server: Workload,
    /// A pod of the mesh's address range without a sidecar.
    pub(crate) stranger: Pod,
    pub(crate) forge: Forge,
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
}

pub(crate) async fn stage(spec: Spec) -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let server = mesh.workload_of(spec).await?;
    let stranger = mesh.pod("stranger")?;
    let forge = Forge::of(&mesh.ca).await?;
    let (said, heard) = mpsc::unbounded_channel();
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    tokio::spawn(answer(listener, said));
    Ok(Some(Stage { mesh, server, stranger, forge, heard }))
}

/// The workload: reports what it hears first on each connection, and answers.
async fn answer(listener: TcpListener, said: mpsc::UnboundedSender<Vec<u8>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let said = said.clone();
        tokio::spawn(async move {
            let mut first = vec![0; 64];
            let read = stream.read(&mut first).await.unwrap_or(0);
            first.truncate(read);
            let _ = said.send(first);
            let _ = stream.write_all(GREETING).await;
            let _ = stream.shutdown().await;
        });
    }
}

impl Stage {
    pub(crate) fn to(&self) -> SocketAddr {
        self.server.v4(PORT)
    }

    /// A genuine SVID for the stranger's own addresses.
    pub(crate) fn genuine(&self) -> Result<Credential> {
        self.forge.svid("spiffe://mesh.test/ns/test/sa/stranger", self.stranger.addresses())
    }

    /// What the workload heard since the last question.
    pub(crate) fn heard(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    /// Speaks plain mTLS to the workload's port and says `words`.
    pub(crate) async fn speak(&self, config: ClientConfig, words: &[u8]) -> Result<Vec<u8>> {
        let tcp = self.stranger.tcp_connect(self.to()).await?;
        let name = ServerName::IpAddress(self.to().ip().into());
        let talk = async {
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
            stream.write_all(words).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            anyhow::Ok(answer)
        };
        tokio::time::timeout(SOON, talk).await.context("no end within the deadline")?
    }

    /// The peer is refused with this word and the workload hears nothing.
    pub(crate) async fn demand_refused(
        &mut self,
        name: &str,
        config: ClientConfig,
        word: &str,
    ) -> Result<()> {
        let before = self.server.metrics().await?.outcome("inbound", word);
        if let Ok(answer) = self.speak(config, b"let me in").await {
            bail!("{name}: was let in and heard {:?}", String::from_utf8_lossy(&answer));
        }
        self.server.outcome("inbound", word, before + 1.0).await.context(name.to_owned())?;
        ensure!(self.heard().is_empty(), "{name}: the workload heard something");
        Ok(())
    }
}

/// A client that trusts the mesh and presents `own`, or nothing.
pub(crate) fn client(
    forge: &Forge,
    own: Option<&Credential>,
    alpn: &[&[u8]],
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(forge.bundle()?)));
    let mut config = match own {
        // Not `with_client_auth_cert`: rustls would not even load what no peer should accept.
        Some(own) => {
            let key = any_supported_type(&own.key)?;
            let own = CertifiedKey::new(own.chain.clone(), key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// Lets declared peers in that speak no `myelin/1`.
pub(crate) fn declared() -> Spec {
    Spec::new("server").tables("[[inbound.port]]\nport = 7000\nplain_mtls = true\n")
}
