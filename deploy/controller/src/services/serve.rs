//! The port on which sidecars ask: mutual TLS 1.3 under our own SVID, gRPC on top, one stream for each
//! sidecar. Called by the room's door.
//!
//! Never: answers anybody without a valid SVID of our own trust domain; lists the cluster (a caller
//! learns only what it names); says that something is no service before everything was listed.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::UnixTime;
use myelin_identity::services::proto;
use myelin_identity::verify::{Peer, Refusal, Role};
use myelin_sidecar::addr::Clock;
use myelin_sidecar::controller::ALPN;
use myelin_sidecar::credentials::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::connection::{Caller, Connection, Use};
use super::hub::Hub;
use super::route::Both;
use super::stubs::policy::policies_server::PoliciesServer;
use super::stubs::services_server::{Services, ServicesServer};
use super::talk::Talk;
use crate::metrics::Metrics;
use crate::policies::Policies;

/// Connections of sidecars, two for each (services, policies); a larger mesh has several replicas.
pub(super) const MAX_CONNECTIONS: usize = 32_768;
/// Connections that have not proved yet whose they are, the silent ones included: they take nobody's place. Some
/// thousand begin in the second after a controller went away.
pub(super) const MAX_HANDSHAKES: usize = 2_048;
/// Several round trips across a continent, and a storm of others before it.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A sidecar has one stream; one that ends may not be gone yet when the next begins.
const MAX_STREAMS: u32 = 4;
/// A question is under 50 bytes.
const MAX_QUESTION_BYTES: usize = 1_024;
/// Answers that wait for one slow sidecar; what changes meanwhile waits in its mailbox, once.
const ANSWERS_BUFFERED: usize = 4;
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
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let permit = Arc::clone(&handshakes).acquire_owned().await;
            let permit = permit.expect("this semaphore is never closed");
            let Ok((tcp, from)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (api, sender, places) = (self.clone(), sender.clone(), Arc::clone(&places));
            tokio::spawn(async move {
                let shaken = timeout(HANDSHAKE_WITHIN, api.handshake(tcp)).await;
                drop(permit);
                let why = match (shaken, places.try_acquire_owned()) {
                    (Ok(Ok((tls, peer))), Ok(place)) => {
                        let (caller, changes) = (Caller::new(peer), api.store.subscribe());
                        let judge = move |peer: &Peer| api.judge(peer);
                        let connection = Connection::new(tls, caller, place, changes, judge);
                        // Nobody takes connections any more: the process ends.
                        let _ = sender.send(Ok(connection)).await;
                        return;
                    }
                    (Ok(Ok(_)), Err(_)) => "overloaded",
                    (Ok(Err(why)), _) => why,
                    (Err(_), _) => "deadline",
                };
                tracing::info!(%from, outcome = why, "no sidecar of ours");
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
        (peer, lasts): (&Peer, &Use),
        mut questions: Streaming<proto::ServiceQuestion>,
        sender: &mpsc::Sender<Result<proto::ServiceAnswer, Status>>,
    ) -> Result<(), Status> {
        let mut talk = Talk::new(self.hub.join(&peer.ip_sans));
        let mailbox = talk.mailbox();
        let mut is_open = true;
        loop {
            tokio::select! {
                question = questions.message(), if is_open => match question? {
                    Some(question) => talk.note(question)?,
                    // Half-closed: no more questions, but the answers go on.
                    None => is_open = false,
                },
                () = mailbox.woken() => talk.read(mailbox.take()),
                permit = sender.reserve(), if talk.has_more() => match permit {
                    Ok(permit) => if let Some(answer) = talk.next() {
                        self.metrics.service_answer();
                        permit.send(Ok(answer));
                    },
                    Err(_) => return Ok(()),
                },
                over = lasts.over() => return Err(over),
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
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("the connection was not authenticated"));
        };
        if !self.hub.is_complete() {
            return Err(Status::unavailable("this controller has not read the cluster yet"));
        }
        let (sender, answers) = mpsc::channel(ANSWERS_BUFFERED);
        let api = self.clone();
        tokio::spawn(async move {
            let lasts = caller.begin();
            api.metrics.service_streams(1);
            let (with, questions) = ((&*caller.peer, &lasts), request.into_inner());
            if let Err(status) = api.converse(with, questions, &sender).await {
                // The caller may be gone.
                let _ = sender.send(Err(status)).await;
            }
            api.metrics.service_streams(-1);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
