//! The sidecars' half: one connection and one stream under an SVID of its own, questions about a few
//! services, and the sidecar's own pace when the controller goes away. Called by `mod`.
//!
//! Never: two callers with one SVID or one connection; a workload that needs an answer at once.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::SpiffeId;
use myelin_identity::services::{Said, ServiceAnswer, ServiceQuestion, ServiceVersion, proto};
use myelin_identity::verify::EndpointVerifier;
use myelin_sidecar::controller::{ALPN, LONGEST_SPREAD, Pace};
use myelin_sidecar::tls;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::issuance::client::{Held, Host};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Reasons of failed tries that are kept.
const MAX_REASONS: usize = 3;

/// What all callers tell the measurement.
#[derive(Default)]
pub(super) struct Told {
    /// Callers that have had an answer about each of their services on their present stream.
    pub(super) whole: AtomicUsize,
    pub(super) lost: AtomicUsize,
    pub(super) failed: AtomicUsize,
    /// Full answers, and those that say that nothing is new.
    pub(super) full: AtomicUsize,
    pub(super) unchanged: AtomicUsize,
    /// When each of them became whole.
    pub(super) times: Mutex<Vec<Instant>>,
    /// Why tries failed, the first ones.
    pub(super) reasons: Mutex<Vec<String>>,
}

/// The controller: where it is, and exactly who.
pub(super) struct Whom {
    pub(super) address: SocketAddr,
    pub(super) id: SpiffeId,
    pub(super) bundle: Arc<TrustBundle>,
}

/// What one caller heard of a service, and when.
pub(super) type Heard = mpsc::UnboundedSender<(SocketAddr, Instant)>;

pub(super) struct Caller {
    host: Host,
    config: Arc<ClientConfig>,
    controller: SocketAddr,
    places: Vec<SocketAddr>,
    known: HashMap<SocketAddr, ServiceVersion>,
    told: Arc<Told>,
    heard: Heard,
}

impl Told {
    fn because(&self, ended: &Result<()>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = ended
            && reasons.len() < MAX_REASONS
        {
            reasons.push(format!("{why:#}"));
        }
    }
}

impl Caller {
    pub(super) fn new(
        (host, held): (Host, Held),
        whom: &Whom,
        places: Vec<SocketAddr>,
        told: Arc<Told>,
        heard: Heard,
    ) -> Result<Self> {
        let verifier = EndpointVerifier::new(Arc::clone(&whom.bundle), whom.id.clone());
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(held.chain.clone(), held.key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        let (config, controller) = (Arc::new(config), whom.address);
        Ok(Self { host, config, controller, places, known: HashMap::new(), told, heard })
    }

    /// Whether anybody answers there.
    pub(super) async fn finds_somebody(&self) -> bool {
        self.open().await.is_ok()
    }

    /// Watches until dropped, from some moment of the spread on.
    pub(super) async fn run(mut self) {
        let mut pace = Pace::default();
        // Nobody needs an answer at once.
        pace.pause(true, LONGEST_SPREAD, std::future::pending()).await;
        loop {
            let mut is_whole = false;
            let ended = self.session(&mut is_whole).await;
            if is_whole {
                self.told.whole.fetch_sub(1, Ordering::Relaxed);
                self.told.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                self.told.failed.fetch_add(1, Ordering::Relaxed);
                self.told.because(&ended);
            }
            pace.pause(is_whole, LONGEST_SPREAD, std::future::pending()).await;
        }
    }

    async fn session(&mut self, is_whole: &mut bool) -> Result<()> {
        let connected = timeout(CONNECT_WITHIN, self.open()).await;
        // The sender is the stream's other half: without it the stream is half-closed.
        let (_questions, mut answers) = connected.context("not connected in time")??;
        let mut missing = self.places.len();
        while let Some(answer) = answers.message().await? {
            let answer = ServiceAnswer::try_from(answer)?;
            let counted = match answer.said {
                Said::Service(version, _) => {
                    self.known.insert(answer.place, version);
                    &self.told.full
                }
                Said::Unchanged(_) => &self.told.unchanged,
                Said::NotAService => anyhow::bail!("a service is none"),
            };
            counted.fetch_add(1, Ordering::Relaxed);
            if missing > 0 {
                missing -= 1;
                if missing == 0 {
                    *is_whole = true;
                    self.told.whole.fetch_add(1, Ordering::Relaxed);
                    self.told
                        .times
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Instant::now());
                }
                continue;
            }
            // Nobody listens any more when it is over.
            let _ = self.heard.send((answer.place, Instant::now()));
        }
        Ok(())
    }

    async fn open(
        &self,
    ) -> Result<(mpsc::Sender<proto::ServiceQuestion>, Streaming<proto::ServiceAnswer>)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.host.address, 0).into())?;
        let tcp = socket.connect(self.controller).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.controller.ip());
        let tls = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await?;
        let mut once = Some(TokioIo::new(tls));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://myelin-controller");
        let channel = endpoint.connect_with_connector(connector).await?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await?;
        let codec = ProstCodec::<proto::ServiceQuestion, proto::ServiceAnswer>::default();
        let (questions, asked) = mpsc::channel(self.places.len());
        for place in &self.places {
            let known = self.known.get(place).copied();
            let question = ServiceQuestion { place: *place, forget: false, known };
            questions.send(question.into()).await?;
        }
        let asked = tonic::Request::new(ReceiverStream::new(asked));
        let path = "/myelin.services.v1.Services/WatchServices".parse()?;
        Ok((questions, grpc.streaming(asked, path, codec).await?.into_inner()))
    }
}
