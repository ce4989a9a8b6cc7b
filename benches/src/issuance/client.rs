//! The callers' half, as a sidecar does it: one TLS connection with its exporter, a host's proof, an
//! issue. Called by every measurement.
//!
//! Never: shares a connection's proof with another connection.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::Ed25519KeyPair;
use hyper_util::rt::TokioIo;
use myelin_ca::api::ca_client::CaClient;
use myelin_ca::app::system_clock;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::issuance::{
    EXPORTER_BYTES, EXPORTER_LABEL, HostSpki, IssueResponse, Lineage, RequestKey, proto,
    sign_host_proof,
};
use myelin_identity::verify::CaVerifier;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use proto::issue_request::Attestation;

/// What a sidecar with SVIDs of a day allows one attempt, connecting included.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(10);

/// Where the CA is, and by what it is known.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) grpc: SocketAddr,
    pub(crate) bundle: Arc<TrustBundle>,
}

/// A host and one request of it, made before anything is measured.
pub(crate) struct Prepared {
    pub(crate) host: Host,
    svid_key_der: Vec<u8>,
    csr_der: Vec<u8>,
    request_key: RequestKey,
}

pub(crate) struct Host {
    key: Ed25519KeyPair,
    spki: HostSpki,
    /// Where it lives, and from where it calls.
    pub(crate) address: Ipv4Addr,
}

/// An SVID as its holder has it.
pub(crate) struct Held {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
    pub(crate) lineage: Lineage,
}

/// By what right.
pub(crate) enum Right<'a> {
    Token(&'a [u8]),
    Renewal(&'a Held),
}

/// One connection that has proved the CA.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) client: CaClient<Channel>,
    exporter: [u8; EXPORTER_BYTES],
}

impl Host {
    pub(crate) fn new(nth: usize) -> Result<Self> {
        let key = Ed25519KeyPair::generate()?;
        Ok(Self { spki: HostSpki::of(&key), key, address: address(nth) })
    }
}

impl Prepared {
    pub(crate) fn new(host: Host) -> Result<Self> {
        let pair = KeyPair::generate()?;
        let csr_der = CertificateParams::default().serialize_request(&pair)?.der().to_vec();
        let request_key = RequestKey::random()?;
        Ok(Self { host, svid_key_der: pair.serialize_der(), csr_der, request_key })
    }

    pub(crate) fn request(
        &self,
        right: &Right<'_>,
        exporter: &[u8; EXPORTER_BYTES],
    ) -> Result<proto::IssueRequest> {
        let Self { host, csr_der, request_key, .. } = self;
        let host_spki = host.spki.as_bytes().to_vec();
        let attestation = match right {
            Right::Token(secret) => {
                Attestation::JoinToken(proto::JoinToken { secret: secret.to_vec(), host_spki })
            }
            Right::Renewal(held) => {
                Attestation::Host(proto::Host { host_spki, lineage: Some(held.lineage.into()) })
            }
        };
        Ok(proto::IssueRequest {
            csr_der: csr_der.clone(),
            request_key: request_key.as_bytes().to_vec(),
            attestation: Some(attestation),
            host_signature: sign_host_proof(&host.key, exporter, csr_der, request_key),
            lifetime_seconds: 0,
        })
    }

    /// What its holder has, once it is issued.
    pub(crate) fn held(
        self,
        chain: Vec<CertificateDer<'static>>,
        lineage: Lineage,
    ) -> (Host, Held) {
        (self.host, Held { chain, key_der: self.svid_key_der, lineage })
    }
}

impl Target {
    /// A connection from `from`, that shows `held`.
    pub(crate) async fn connect(&self, from: Ipv4Addr, held: Option<&Held>) -> Result<Link> {
        let config = self.config(held)?;
        let connected = timeout(ATTEMPT, self.connect_with(config, from)).await;
        connected.context("not connected in time")?
    }

    fn config(&self, held: Option<&Held>) -> Result<ClientConfig> {
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
        let builder =
            ClientConfig::builder_with_details(Arc::new(provider), Arc::new(system_clock()))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(CaVerifier::new(self.bundle.clone())));
        let mut config = match held {
            Some(held) => builder.with_client_auth_cert(held.chain.clone(), held.key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    async fn connect_with(&self, config: ClientConfig, from: Ipv4Addr) -> Result<Link> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let tcp = socket.connect(self.grpc).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.grpc.ip());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (_, session) = tls.get_ref();
        let exporter = session.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)?;
        let mut once = Some(TokioIo::new(tls));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://myelin-ca");
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(Link { client: CaClient::new(channel), exporter })
    }
}

impl Held {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key_der.clone().into())
    }
}

impl Link {
    /// One issue; the SVID comes back unverified.
    pub(crate) async fn issue(
        &mut self,
        prepared: &Prepared,
        right: &Right<'_>,
    ) -> Result<IssueResponse> {
        Ok(self.ask(prepared, right).await?.try_into()?)
    }

    /// One issue whose answer is there and is not looked into: that would cost its caller more than it
    /// costs the CA, and leave the CA waiting for callers.
    pub(crate) async fn issue_unread(
        &mut self,
        prepared: &Prepared,
        right: &Right<'_>,
    ) -> Result<()> {
        let answer = self.ask(prepared, right).await?;
        let whole = answer.chain_der.len() == 2 && !answer.log_proof.is_empty();
        ensure!(whole, "an answer without an SVID or without its proof");
        Ok(())
    }

    async fn ask(
        &mut self,
        prepared: &Prepared,
        right: &Right<'_>,
    ) -> Result<proto::IssueResponse> {
        let request = prepared.request(right, &self.exporter)?;
        let answered = timeout(ATTEMPT, self.client.issue(request)).await;
        Ok(answered.context("not answered in time")??.into_inner())
    }
}

/// Where the `nth` host lives: each in a place of its own, all of them on this machine.
pub(crate) fn address(nth: usize) -> Ipv4Addr {
    let [_, a, b, c] = (u32::try_from(nth).unwrap_or_default() + 0x01_0000).to_be_bytes();
    Ipv4Addr::new(127, a, b, c)
}

/// The same as the CA sees it.
pub(crate) fn ip(nth: usize) -> IpAddr {
    IpAddr::V4(address(nth))
}
