//! A holder of an SVID without a sidecar: it enrols at the real CA by itself, and says on its watch
//! whatever the test likes. What it says is carried by the real protocol.
//!
//! Never: renews, or takes anything over that it is told.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::signature::Ed25519KeyPair;
use hyper_util::rt::TokioIo;
use myelin_ca::api::ca_client::CaClient;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{
    EXPORTER_BYTES, EXPORTER_LABEL, HostSpki, IssueResponse, JoinToken, RequestKey, proto,
    sign_host_proof,
};
use myelin_identity::verify::CaVerifier;
use myelin_lab::Pod;
use myelin_sidecar::addr::Clock;
use myelin_sidecar::tls::Configs;
use myelin_tests::ca::Ca;
use myelin_tests::forge::{now, pkcs8};
use proto::issue_request::Attestation;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Far beyond what one step takes here.
const STEP: Duration = Duration::from_secs(20);

/// Whoever holds an SVID and no sidecar.
pub(crate) struct Bare {
    pub(crate) issued: IssueResponse,
    key: KeyPair,
    endpoint: SocketAddr,
}

/// A standing watch on which acknowledgements are sent.
pub(crate) struct Talk {
    acks: mpsc::Sender<proto::BundleAck>,
    updates: JoinHandle<()>,
}

impl Bare {
    /// Enrols with a join token for `id` and the pod's addresses.
    pub(crate) async fn enrol(ca: &Ca, pod: &Pod, id: &str) -> Result<Self> {
        let token: JoinToken = ca.token(id, pod.addresses()).await?.trim().parse()?;
        let domain = TrustDomain::parse(ca.trust_domain())?;
        let bundle = Arc::new(TrustBundle::from_pem(domain, 1, &ca.bundle_pem().await?)?);
        let (key, host) = (KeyPair::generate()?, Ed25519KeyPair::generate()?);
        let csr_der = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        let request_key = RequestKey::random()?;
        let (mut client, exporter) = connect(pod, ca.endpoint(), &bundle, None).await?;
        let join = proto::JoinToken {
            secret: token.secret.reveal().to_vec(),
            host_spki: HostSpki::of(&host).as_bytes().to_vec(),
        };
        let request = proto::IssueRequest {
            csr_der: csr_der.clone(),
            request_key: request_key.as_bytes().to_vec(),
            attestation: Some(Attestation::JoinToken(join)),
            host_signature: sign_host_proof(&host, &exporter, &csr_der, &request_key),
            lifetime_seconds: 0,
        };
        let answer = timeout(STEP, client.issue(request)).await.context("no answer")??;
        let issued = IssueResponse::try_from(answer.into_inner())?;
        Ok(Self { issued, key, endpoint: ca.endpoint() })
    }

    /// What a sidecar would make mesh connections with, trusting what was told with the SVID.
    pub(crate) fn configs(&self) -> Result<Configs> {
        let bundle = Arc::new(self.issued.bundle.clone());
        let (key, clock) = (pkcs8(&self.key), Clock::new(now));
        Ok(Configs::build(&self.issued.chain, &key, &bundle, &[], &clock)?)
    }

    /// A watch under this SVID, from this pod.
    pub(crate) async fn watch(&self, pod: &Pod) -> Result<Talk> {
        let bundle = Arc::new(self.issued.bundle.clone());
        let (mut client, _) = connect(pod, self.endpoint, &bundle, Some(self)).await?;
        let (acks, outgoing) = mpsc::channel(4);
        let opened = timeout(STEP, client.watch_bundle(ReceiverStream::new(outgoing))).await;
        let mut updates = opened.context("the watch was not opened")??.into_inner();
        let first = timeout(STEP, updates.message()).await.context("nothing was said")??;
        first.context("the watch ended at once")?;
        let updates =
            tokio::spawn(async move { while let Ok(Some(_)) = updates.message().await {} });
        Ok(Talk { acks, updates })
    }
}

impl Talk {
    /// Says that this generation is trusted.
    pub(crate) async fn claim(&self, generation: u64) -> Result<()> {
        let ack = proto::BundleAck { generation, deny_epoch: 0 };
        self.acks.send(ack).await.context("the watch has ended")
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.updates.abort();
    }
}

async fn connect(
    from: &Pod,
    to: SocketAddr,
    bundle: &Arc<TrustBundle>,
    shown: Option<&Bare>,
) -> Result<(CaClient<Channel>, [u8; EXPORTER_BYTES])> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(CaVerifier::new(bundle.clone())));
    let mut config = match shown {
        Some(own) => builder.with_client_auth_cert(own.issued.chain.clone(), pkcs8(&own.key))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    let tcp = from.tcp_connect(to).await?;
    let name = ServerName::from(to.ip());
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let exporter =
        tls.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)?;
    let mut once = Some(TokioIo::new(tls));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    let endpoint = Endpoint::from_static("http://myelin-ca");
    Ok((CaClient::new(endpoint.connect_with_connector(connector).await?), exporter))
}
