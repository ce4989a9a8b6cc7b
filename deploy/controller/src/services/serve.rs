//! The port on which sidecars ask: mutual TLS 1.3 under our own SVID, gRPC on top, one stream for each
//! sidecar. Called by the room's door.
//!
//! Never: answers anybody without a valid SVID of our own trust domain; lists the cluster (a caller
//! learns only what it names); says that something is no service before everything was listed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use myelin_identity::UnixTime;
use myelin_identity::services::{MAX_ASKED, ServiceQuestion, ServiceVersion, no_service, proto};
use myelin_identity::verify::{Peer, Refusal, Role};
use myelin_sidecar::addr::Clock;
use myelin_sidecar::controller::ALPN;
use myelin_sidecar::credentials::Store;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::hub::{Hub, Stream};
use super::route::Both;
use super::stubs::policy::policies_server::PoliciesServer;
use super::stubs::services_server::{Services, ServicesServer};
use crate::metrics::Metrics;
use crate::policies::Policies;

/// Open connections, two for each sidecar (services, policies); a larger mesh has several replicas.
const MAX_CONNECTIONS: usize = 32_768;
/// Several round trips across a continent, and a storm of others before it.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A sidecar has one stream; one that ends may not be gone yet when the next begins.
const MAX_STREAMS: u32 = 4;
/// A question is under 50 bytes.
const MAX_QUESTION_BYTES: usize = 1_024;
/// Answers that wait for one slow sidecar; what changes meanwhile waits in its mailbox, once.
const ANSWERS_BUFFERED: usize = 4;
/// How often the peer of an open stream is judged again by its dates alone.
pub(super) const JUDGED_EVERY: Duration = Duration::from_secs(5);
/// A peer that vanished without a FIN is noticed after these two.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Connections that wait for HTTP/2 to take them.
const HANDOVER: usize = 64;
/// After a failed accept (no file descriptor left): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 header block of a request: ours is under 1 KiB.
const MAX_HEADER_BYTES: u32 = 8 * 1024;

/// All that the port stands on.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) hub: Arc<Hub>,
    /// Absent: nobody is told of policies.
    pub(super) policies: Option<Arc<Policies>>,
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

impl Api {
    /// Serves until dropped.
    pub(super) async fn serve(self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        let (sender, accepted) = mpsc::channel(HANDOVER);
        let (services, policies) = (self.clone(), self.clone());
        let both = Both {
            services: ServicesServer::new(services).max_decoding_message_size(MAX_QUESTION_BYTES),
            policies: PoliciesServer::new(policies).max_decoding_message_size(MAX_QUESTION_BYTES),
        };
        let served = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .serve_with_incoming(both, ReceiverStream::new(accepted));
        tokio::select! {
            never = self.accept(listener, sender) => match never {},
            served = served => served,
        }
    }

    async fn accept(
        &self,
        listener: TcpListener,
        sender: mpsc::Sender<Result<Connection, io::Error>>,
    ) -> std::convert::Infallible {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("this semaphore is never closed");
            let Ok((tcp, from)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (api, sender) = (self.clone(), sender.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE_WITHIN, api.handshake(tcp)).await {
                    Ok(Ok((tls, peer))) => {
                        let caller = Caller(peer);
                        // Nobody takes connections any more: the process ends.
                        let _ = sender.send(Ok(Connection { tls, caller, _permit: permit })).await;
                    }
                    Ok(Err(why)) => tracing::info!(%from, outcome = why, "no sidecar of ours"),
                    Err(_) => tracing::info!(%from, outcome = "deadline", "no sidecar of ours"),
                }
            });
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Arc<Peer>), &'static str> {
        // Small answers must not wait for an acknowledgement; if the option fails they merely do.
        let _ = tcp.set_nodelay(true);
        let snapshot = self.store.usable(self.clock.unix()).map_err(|none| none.word())?;
        let config = snapshot.tls.accept_plain(Some(ALPN)).ok_or("undeclared")?;
        let tls = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await;
        let tls = tls.map_err(|error| {
            Refusal::of_io(&error).map_or("handshake_failed", |refusal| refusal.word())
        })?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = snapshot.tls.peer(chain, Role::Client).map_err(|refusal| refusal.word())?;
        self.judge(&peer).map_err(|refusal| refusal.word())?;
        Ok((tls, peer))
    }

    /// Whether this peer may be told anything at this moment.
    pub(super) fn judge(&self, peer: &Peer) -> Result<(), Refusal> {
        let Some(snapshot) = self.store.load() else { return Err(Refusal::NoCertificate) };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.clock.unix()));
        // Our own bundle alone: foreign workloads have controllers of their own.
        peer.still_trusted(&snapshot.bundle, &snapshot.deny, now)
    }

    async fn converse(
        &self,
        peer: &Peer,
        mut questions: Streaming<proto::ServiceQuestion>,
        sender: &mpsc::Sender<Result<proto::ServiceAnswer, Status>>,
    ) -> Result<(), Status> {
        let mut talk = Talk::new(self.hub.join());
        let mailbox = Arc::clone(&talk.stream.mailbox);
        let mut changes = self.store.subscribe();
        let mut beat = tokio::time::interval(JUDGED_EVERY);
        let mut is_open = true;
        loop {
            tokio::select! {
                question = questions.message(), if is_open => match question? {
                    Some(question) => talk.note(question)?,
                    // Half-closed: no more questions, but the answers go on.
                    None => is_open = false,
                },
                () = mailbox.woken() => talk.pending.extend(mailbox.take()),
                permit = sender.reserve(), if !talk.pending.is_empty() => match permit {
                    Ok(permit) => if let Some(answer) = talk.next(peer) {
                        self.metrics.service_answer();
                        permit.send(Ok(answer));
                    },
                    Err(_) => return Ok(()),
                },
                _ = changes.changed() => {}
                _ = beat.tick() => {}
                () = sender.closed() => return Ok(()),
            }
            let denied = |refusal: Refusal| Status::permission_denied(refusal.to_string());
            self.judge(peer).map_err(denied)?;
        }
    }
}

#[tonic::async_trait]
impl Services for Api {
    type WatchServicesStream = ReceiverStream<Result<proto::ServiceAnswer, Status>>;

    async fn watch_services(
        &self,
        request: Request<Streaming<proto::ServiceQuestion>>,
    ) -> Result<Response<Self::WatchServicesStream>, Status> {
        let Some(Caller(peer)) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("the connection was not authenticated"));
        };
        if !self.hub.is_complete() {
            return Err(Status::unavailable("this controller has not read the cluster yet"));
        }
        let (sender, answers) = mpsc::channel(ANSWERS_BUFFERED);
        let api = self.clone();
        tokio::spawn(async move {
            api.metrics.service_streams(1);
            if let Err(status) = api.converse(&peer, request.into_inner(), &sender).await {
                // The caller may be gone.
                let _ = sender.send(Err(status)).await;
            }
            api.metrics.service_streams(-1);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// What one stream asked and was told.
struct Talk {
    stream: Stream,
    /// What the caller holds of each place.
    known: HashMap<SocketAddr, Told>,
    pending: BTreeSet<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing yet on this stream, and this before.
    Before(Option<ServiceVersion>),
    /// On this stream; `None`: that it is no service.
    Here(Option<ServiceVersion>),
}

impl Talk {
    fn new(stream: Stream) -> Self {
        Self { stream, known: HashMap::new(), pending: BTreeSet::new() }
    }

    fn note(&mut self, question: proto::ServiceQuestion) -> Result<(), Status> {
        let question = ServiceQuestion::try_from(question);
        let question = question.map_err(|why| Status::invalid_argument(why.to_string()))?;
        let ServiceQuestion { place, forget, known } = question;
        if forget {
            self.stream.forget(place);
            self.known.remove(&place);
            self.pending.remove(&place);
            return Ok(());
        }
        if !self.stream.watches(place) && self.stream.len() >= MAX_ASKED {
            return Err(Status::resource_exhausted("too many places on one stream; forget some"));
        }
        self.stream.watch(place);
        // Asked again: answered again.
        self.known.insert(place, Told::Before(known));
        self.pending.insert(place);
        Ok(())
    }

    /// The next answer, if there is anything to say.
    fn next(&mut self, peer: &Peer) -> Option<proto::ServiceAnswer> {
        let place = self.pending.pop_first()?;
        let now = self.stream.now(place);
        let version = now.as_ref().map(|now| now.version());
        // Forgotten meanwhile: nobody waits for it.
        let told = self.known.get_mut(&place)?;
        let before = match *told {
            Told::Here(here) if here == version => return None,
            Told::Here(_) => None,
            Told::Before(before) => before,
        };
        *told = Told::Here(version);
        let zone = self.stream.zone(&peer.ip_sans);
        Some(match now {
            Some(now) => now.answer(place, before, &zone),
            None => no_service(place, &zone),
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Arc<Peer>);

/// One authenticated connection as tonic wants it; it outlives nobody's permit.
struct Connection {
    tls: TlsStream<TcpStream>,
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
