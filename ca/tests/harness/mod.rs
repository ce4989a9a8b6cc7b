//! A real CA in this process and a small client of its gRPC API, for the suites beside it. The
//! client does what a sidecar does, and can be told to do what a sidecar never would.
//!
//! Never: reaches into the CA's state; whatever a test knows, it was told over the wire or by the
//! operator's door.

// SPDX-License-Identifier: Apache-2.0

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use myelin_ca::api::ca_client::CaClient;
use myelin_ca::app::{Builder, Running};
use myelin_ca::authority::tokens::TokenRequest;
use myelin_ca::authority::{Authority, Settings};
use myelin_ca::clock::Clock;
use myelin_ca::config::{AttestConfig, Keys, ServeConfig, StoreConfig, WitnessConfig};
use myelin_ca::operator::{Answer, Ask};
use myelin_ca::template::{Lifetimes, MAX_LIFETIME, MIN_LIFETIME};
use myelin_identity::bundle::{BundleHash, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{EXPORTER_BYTES, EXPORTER_LABEL, JoinToken};
use myelin_identity::verify::{CaVerifier, FirstContact};
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

mod client;
mod evidence;
pub mod web;
pub mod witness;

pub use client::*;
pub use evidence::*;

pub const TRUST_DOMAIN: &str = "prod.example";
pub const WEB: &str = "spiffe://prod.example/ns/shop/sa/web";

/// A CA on ephemeral ports, with a clock that a test may set forward.
pub struct TestCa {
    pub running: Running,
    pub directory: tempfile::TempDir,
    pub ahead: Arc<AtomicU64>,
    config: ServeConfig,
}

impl TestCa {
    pub async fn start() -> Self {
        let (default, longest) = (MAX_LIFETIME, MAX_LIFETIME);
        Self::start_with(Lifetimes { default, shortest: MIN_LIFETIME, longest }).await
    }

    pub async fn start_with(lifetimes: Lifetimes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path().join("data"), lifetimes);
        let ahead = Arc::new(AtomicU64::new(0));
        let running = Builder::new(config.clone()).clock(clock(&ahead)).start().await.unwrap();
        Self { running, directory, ahead, config }
    }

    /// With attestors of outside evidence, and namespaces that need no entry.
    pub async fn start_attesting(attest: AttestConfig, namespaces: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (default, longest) = (MAX_LIFETIME, MAX_LIFETIME);
        let lifetimes = Lifetimes { default, shortest: MIN_LIFETIME, longest };
        let mut config = config(directory.path().join("data"), lifetimes);
        config.attest = attest;
        config.authority.kubernetes_namespaces =
            namespaces.iter().map(|name| (*name).to_owned()).collect();
        let ahead = Arc::new(AtomicU64::new(0));
        let running = Builder::new(config.clone()).clock(clock(&ahead)).start().await.unwrap();
        Self { running, directory, ahead, config }
    }

    /// Whose root is replaced by itself when it is that old.
    pub async fn start_rotating(every: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lifetimes =
            Lifetimes { default: MAX_LIFETIME, shortest: MIN_LIFETIME, longest: MAX_LIFETIME };
        let mut config = config(directory.path().join("data"), lifetimes);
        config.authority.rotate_root_every = Some(every);
        let ahead = Arc::new(AtomicU64::new(0));
        let running = Builder::new(config.clone()).clock(clock(&ahead)).start().await.unwrap();
        Self { running, directory, ahead, config }
    }

    /// With witnesses of its logs.
    pub async fn start_witnessed(witnesses: WitnessConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lifetimes =
            Lifetimes { default: MAX_LIFETIME, shortest: MIN_LIFETIME, longest: MAX_LIFETIME };
        let config = ServeConfig { witnesses, ..config(directory.path().join("data"), lifetimes) };
        let ahead = Arc::new(AtomicU64::new(0));
        let running = Builder::new(config.clone()).clock(clock(&ahead)).start().await.unwrap();
        Self { running, directory, ahead, config }
    }

    /// Stops and starts again on the same data directory.
    pub async fn restart(self) -> Self {
        let Self { running, directory, ahead, config } = self;
        running.stop().await;
        let running = Builder::new(config.clone()).clock(clock(&ahead)).start().await.unwrap();
        Self { running, directory, ahead, config }
    }

    /// Moves the CA's clock (and the test client's view of it) forward.
    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        clock(&self.ahead)
    }

    pub fn authority(&self) -> &Authority {
        self.running.authority()
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.running.authority().bundle()
    }

    pub async fn token(&self, id: &str, address: &str) -> JoinToken {
        self.try_token(id, &[address], &[]).await.unwrap()
    }

    pub async fn try_token(
        &self,
        id: &str,
        addresses: &[&str],
        ports: &[u16],
    ) -> Result<JoinToken, String> {
        let request = TokenRequest {
            spiffe_id: id.to_owned(),
            addresses: addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
            ports: ports.to_vec(),
            protocol: String::new(),
            ttl_seconds: 600,
        };
        match self.running.ask(Ask::CreateToken(request)).await {
            Ok(Answer::Token(made)) => Ok(made.token.parse().unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn target(&self) -> Target {
        let grpc = SocketAddr::new("127.0.0.1".parse().unwrap(), self.running.grpc.port());
        Target { grpc, bundle: self.bundle(), clock: self.clock() }
    }
}

pub fn config(data: std::path::PathBuf, lifetimes: Lifetimes) -> ServeConfig {
    ServeConfig {
        trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        data,
        store: StoreConfig::Embedded,
        keys: Keys::default(),
        root_cert: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        ops_listen: "127.0.0.1:0".parse().unwrap(),
        attest: AttestConfig::default(),
        witnesses: WitnessConfig::default(),
        authority: Settings {
            lifetimes,
            own_addresses: vec!["127.0.0.1".parse().unwrap()],
            own_names: vec![],
            kubernetes_namespaces: vec![],
            rotate_root_every: None,
        },
        federation: None,
    }
}

pub fn clock(ahead: &Arc<AtomicU64>) -> Clock {
    let ahead = ahead.clone();
    Clock::new(move || {
        let now = UnixTime::now().as_secs() + ahead.load(Ordering::SeqCst);
        UnixTime::since_unix_epoch(Duration::from_secs(now))
    })
}

/// Where a client connects, and what it trusts.
#[derive(Clone)]
pub struct Target {
    pub grpc: SocketAddr,
    pub bundle: Arc<TrustBundle>,
    pub clock: Clock,
}

/// A gRPC client on one TLS connection whose exporter is known.
pub struct Connected {
    pub client: CaClient<Channel>,
    pub exporter: [u8; EXPORTER_BYTES],
    pub chain: Vec<CertificateDer<'static>>,
}

impl Target {
    pub async fn connect(&self, svid: Option<&Held>) -> Connected {
        self.try_connect(Arc::new(CaVerifier::new(self.bundle.clone())), svid).await.unwrap()
    }

    /// The very first connection: nothing but the token's hash is known.
    pub async fn first_contact(&self, hash: BundleHash) -> Result<Connected, std::io::Error> {
        let verifier =
            Arc::new(FirstContact::new(hash, Some(TrustDomain::parse(TRUST_DOMAIN).unwrap())));
        self.try_connect(verifier, None).await
    }

    pub async fn try_connect(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        svid: Option<&Held>,
    ) -> Result<Connected, std::io::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match svid {
            Some(held) => {
                builder.with_client_auth_cert(held.response.chain.clone(), held.key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(self.grpc).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::from(self.grpc.ip());
        let tls = connector.connect(name, tcp).await?;
        let connection = tls.get_ref().1;
        let exporter =
            connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None).unwrap();
        let chain = connection
            .peer_certificates()
            .unwrap()
            .iter()
            .map(|der| der.clone().into_owned())
            .collect();
        let mut once = Some(TokioIo::new(tls));
        let channel = Endpoint::from_static("http://ca.invalid")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream =
                    once.take().ok_or_else(|| std::io::Error::other("one connection only"));
                async move { stream }
            }))
            .await
            .map_err(std::io::Error::other)?;
        Ok(Connected { client: CaClient::new(channel), exporter, chain })
    }
}
