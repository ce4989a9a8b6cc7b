//! The connection to the CA: TCP through our marked dialer, TLS 1.3 of our own making, gRPC on top.
//! Called by `issue` and `watch`.
//!
//! Never: says a word before the other end has proved to be exactly the CA of our trust domain
//! (but the question for its trust records, which tells nothing and is answered with proofs);
//! reconnects by itself (a host proof belongs to one TLS connection); resumes a session.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use myelin_identity::bundle::{BundleHash, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{EXPORTER_BYTES, EXPORTER_LABEL};
use myelin_identity::verify::{CaVerifier, FirstContact, Refusal, Stranger};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, version};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint as GrpcEndpoint};

use super::store::Snapshot;
use crate::addr::{Clock, Endpoint};
use crate::net::{DialError, Dialer};
use crate::tls;

/// What gRPC speaks underneath.
const ALPN: &[u8] = b"h2";
/// A connection on which nothing moves is asked whether it still lives; a black hole between us and
/// the CA is noticed after both together.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Generated client of `myelin.v1.Ca`; the messages are those of `myelin-identity`.
pub(super) mod stub {
    #![allow(clippy::all, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]
    tonic::include_proto!("myelin.v1");
}

pub(super) type CaStub = stub::ca_client::CaClient<Channel>;

/// By what we recognise the CA.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// The bundle that we hold: from disk or from the current snapshot.
    Bundle(Arc<TrustBundle>),
    /// Only the bundle's hash, from a join token.
    Hash(BundleHash, Option<TrustDomain>),
    /// By nothing: for the question whose answer proves itself, and no other.
    Stranger,
}

impl Trust {
    /// The roots that are known, by their hash, and their generation: 0 where it is not known.
    pub(super) fn known(&self) -> Option<(BundleHash, u64)> {
        match self {
            Self::Bundle(bundle) => Some((bundle.hash(), bundle.generation())),
            Self::Hash(hash, _) => Some((*hash, 0)),
            Self::Stranger => None,
        }
    }
}

/// Why there is no connection to the CA.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the CA cannot be reached: {0}")]
    Dial(#[from] DialError),
    #[error("the CA at {ca} did not finish its handshake within {after:?}; is it overloaded?")]
    TimedOut { ca: Endpoint, after: Duration },
    #[error("whoever answers at {ca} is not our CA, nothing was sent to it: {refusal}")]
    NotTheCa { ca: Endpoint, refusal: Refusal },
    #[error("TLS with the CA at {ca} failed: {source}")]
    Tls { ca: Endpoint, source: io::Error },
    #[error("our own credential does not fit the connection to the CA: {0}")]
    Own(#[from] rustls::Error),
    #[error("HTTP/2 with the CA at {ca} failed: {source}")]
    Http { ca: Endpoint, source: tonic::transport::Error },
}

impl ConnectError {
    /// The outcome word of a renewal that ended so.
    pub fn word(&self) -> &'static str {
        match self {
            // Its line has now, notBefore and notAfter.
            Self::NotTheCa {
                refusal: Refusal::Expired { .. } | Refusal::NotYetValid { .. },
                ..
            } => "clock_wrong",
            Self::NotTheCa { .. } => "ca_untrusted",
            Self::Own(_) => "svid_rejected",
            Self::Dial(_) | Self::TimedOut { .. } | Self::Tls { .. } | Self::Http { .. } => {
                "ca_unreachable"
            }
        }
    }
}

/// One TLS connection to the CA, with gRPC on it.
pub(super) struct Link {
    pub(super) stub: CaStub,
    /// Binds a host proof to this very connection.
    pub(super) exporter: [u8; EXPORTER_BYTES],
    /// The bundle under which the CA was recognised; none if anybody may have answered.
    pub(super) bundle: Option<Arc<TrustBundle>>,
}

/// How to get there. One for the life of the process.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) dialer: Dialer,
    pub(super) clock: Clock,
}

impl Connector {
    /// A connection that has proved the CA. With `current`, our SVID is shown to it: that is the
    /// proof which a renewal needs. `within` covers dialling and handshake together.
    pub(super) async fn connect(
        &self,
        ca: Endpoint,
        trust: &Trust,
        current: Option<&Snapshot>,
        within: Duration,
    ) -> Result<Link, ConnectError> {
        let deadline = Instant::now() + within;
        let timed_out = |_| ConnectError::TimedOut { ca, after: within };
        let recogniser = Recogniser::new(trust);
        let config = self.tls_config(&recogniser, current)?;
        let tcp = tokio::time::timeout_at(deadline, self.dialer.dial(ca)).await;
        let tcp = tcp.map_err(timed_out)??;
        let handshake =
            TlsConnector::from(Arc::new(config)).connect(ServerName::from(ca.ip()), tcp);
        let tls = tokio::time::timeout_at(deadline, handshake).await.map_err(timed_out)?.map_err(
            |source| match Refusal::of_io(&source) {
                Some(refusal) => ConnectError::NotTheCa { ca, refusal },
                None => ConnectError::Tls { ca, source },
            },
        )?;
        let exporter =
            tls.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)?;
        let bundle = recogniser.bundle();
        let channel = tokio::time::timeout_at(deadline, channel_over(tls, "http://myelin-ca"))
            .await
            .map_err(timed_out)?
            .map_err(|source| ConnectError::Http { ca, source })?;
        Ok(Link { stub: CaStub::new(channel), exporter, bundle })
    }

    fn tls_config(
        &self,
        recogniser: &Recogniser,
        current: Option<&Snapshot>,
    ) -> Result<ClientConfig, rustls::Error> {
        let time = Arc::new(Now(self.clock.clone()));
        let builder = ClientConfig::builder_with_details(tls::provider(), time)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(recogniser.verifier());
        let mut config = match current {
            Some(current) => builder
                .with_client_auth_cert(current.svid.chain().to_vec(), current.key().clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// The verifier of one connection, kept to ask it afterwards what it learned.
enum Recogniser {
    Known(Arc<TrustBundle>, Arc<CaVerifier>),
    First(Arc<FirstContact>),
    Nobody,
}

impl Recogniser {
    fn new(trust: &Trust) -> Self {
        match trust {
            Trust::Bundle(bundle) => {
                let verifier = CaVerifier::new(Arc::clone(bundle));
                Self::Known(Arc::clone(bundle), Arc::new(verifier))
            }
            Trust::Hash(hash, trust_domain) => {
                Self::First(Arc::new(FirstContact::new(*hash, trust_domain.clone())))
            }
            Trust::Stranger => Self::Nobody,
        }
    }

    fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        match self {
            Self::Known(_, verifier) => Arc::<CaVerifier>::clone(verifier),
            Self::First(verifier) => Arc::<FirstContact>::clone(verifier),
            Self::Nobody => Arc::new(Stranger),
        }
    }

    /// Asked only after a handshake that ended well.
    fn bundle(&self) -> Option<Arc<TrustBundle>> {
        match self {
            Self::Known(bundle, _) => Some(Arc::clone(bundle)),
            Self::First(verifier) => {
                let learned = verifier.learned();
                Some(learned.expect("a first contact that was accepted has learned a bundle"))
            }
            Self::Nobody => None,
        }
    }
}

/// gRPC over this one stream. When it ends the channel is dead: a new connection has a new
/// exporter. The name is never resolved; it only fills HTTP/2's `:authority`.
pub async fn channel_over(
    tls: TlsStream<TcpStream>,
    name: &'static str,
) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(TokioIo::new(tls))));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let once = Arc::clone(&once);
        async move {
            let stream = once.lock().await.take();
            stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        }
    });
    GrpcEndpoint::from_static(name)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER_WITHIN)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// Our clock, for rustls.
#[derive(Debug)]
struct Now(Clock);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.unix())))
    }
}
