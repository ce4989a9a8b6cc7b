//! The gRPC port: accepts, shakes hands under a deadline, and hands authenticated connections to
//! tonic.
//!
//! Never: lets a slow handshake hold up another, or accepts beyond its bound.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use myelin_identity::issuance::{EXPORTER_BYTES, EXPORTER_LABEL};
use myelin_identity::verify::{Peer, Refusal, Role, peer};
use rustls::ServerConfig;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::accept::ACCEPT_PAUSE;
use super::connection::Connection;
use super::counted::Counted;
use super::turns::{Turn, Turns, Who};
use super::{Api, Stopping, ca_server::CaServer, stopped};
use crate::attest::{Caller, RemoteAddr};
use crate::authority::Authority;
use crate::metrics::Metrics;

/// Open connections. Each sidecar holds one, which takes 46 KiB with both its watches (benches/README.md).
pub const MAX_CONNECTIONS: usize = 8192;
/// What a sidecar allows itself to be connected: cut earlier it would only begin anew. Two round trips
/// across a continent take 0.6 s; whoever is not done after this is an attack or a dead peer.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes at work at once, a millisecond of CPU each: the others wait before theirs, in the order of
/// `turns`, so that none is begun that is over its deadline before it is its turn again.
const HANDSHAKES_AT_ONCE: usize = 64;
/// A handshake that takes longer waits for its peer and not for us: somebody else begins meanwhile.
const HANDSHAKE_TURN: Duration = Duration::from_millis(100);
/// Largest request: CSR (4 KiB), signatures and keys with much room; refused by its length prefix,
/// unread.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Largest reply: a deny list of its maximum length.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;
/// A sidecar uses three streams: Issue, WatchBundle, WatchDirectory.
pub const MAX_STREAMS: u32 = 16;
/// An answer takes milliseconds; a second `Issue` of the client comes after this at the earliest.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// A peer that vanished without a FIN is noticed after these two.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Shaken-hands connections that wait for tonic to take them.
const HANDOVER: usize = 64;
/// HTTP/2 header block of a request: ours is under 1 KiB.
const MAX_HEADER_BYTES: u32 = 8 * 1024;
/// Flow-control window of a stream: one whole message, so that a large body stalls at the sender.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Of a connection: all of its streams. h2 derives from it how many small frames may lie unread
/// before it cuts.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// Serves the gRPC port until the process is to end, then lets open requests finish.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    api: Api,
) -> Result<(), tonic::transport::Error> {
    let (sender, accepted) = mpsc::channel(HANDOVER);
    let (authority, metrics) = (api.authority.clone(), Metrics::clone(&api.metrics));
    let turns = Turns::new(HANDSHAKES_AT_ONCE);
    let door = Door { tls, authority, metrics, turns, sender };
    let accepting = tokio::spawn(door.accept(listener, api.stopping.clone()));
    let stopping = stopped(api.stopping.clone());
    let service = CaServer::new(api)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_REPLY_BYTES);
    let served = Server::builder()
        .timeout(REQUEST_DEADLINE)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(accepted), stopping)
        .await;
    accepting.abort();
    served
}

#[derive(Clone)]
struct Door {
    tls: Arc<ArcSwap<ServerConfig>>,
    authority: Arc<Authority>,
    metrics: Metrics,
    turns: Turns,
    sender: mpsc::Sender<Result<Connection, io::Error>>,
}

impl Door {
    async fn accept(self, listener: TcpListener, stopping: Stopping) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let stopped = stopped(stopping);
        tokio::pin!(stopped);
        loop {
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit.expect("this semaphore is never closed"),
                () = &mut stopped => return,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stopped => return,
            };
            match accepted {
                Ok((tcp, remote)) => {
                    tokio::spawn(self.clone().shake_hands(tcp, RemoteAddr(remote), permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn shake_hands(self, tcp: TcpStream, remote: RemoteAddr, permit: OwnedSemaphorePermit) {
        let outcome = match self.handshake(tcp, remote).await {
            Ok((tls, caller)) => {
                let counted = Counted::new(self.metrics.connections.clone());
                // Tonic stopped taking connections: the process ends.
                let _ = self.sender.send(Ok(Connection::new(tls, caller, permit, counted))).await;
                "completed"
            }
            Err(word) => {
                tracing::info!(remote = %remote.0, outcome = word, "handshake failed");
                word
            }
        };
        self.metrics.handshakes.with_label_values(&[outcome]).inc();
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        remote: RemoteAddr,
    ) -> Result<(TlsStream<TcpStream>, Caller), &'static str> {
        // Small answers must not wait for an acknowledgement; if the option fails they merely do.
        let _ = tcp.set_nodelay(true);
        // Whoever says nothing takes nobody's turn.
        let Ok(Ok(())) = timeout(HANDSHAKE_DEADLINE, tcp.readable()).await else {
            return Err("deadline");
        };
        let turn = self.turns.take(self.who(remote)).await;
        // In a storm some have given up by now: nobody is kept waiting for them.
        if tcp.ready(Interest::READABLE).await.is_ok_and(|ready| ready.is_read_closed()) {
            return Err("failed");
        }
        let acceptor = TlsAcceptor::from(self.tls.load_full());
        let shaking = in_turn(turn, acceptor.accept(tcp));
        let tls = match timeout(HANDSHAKE_DEADLINE, shaking).await {
            Err(_) => return Err("deadline"),
            Ok(Err(error)) => {
                return Err(Refusal::of_io(&error).map_or("failed", |refusal| refusal.word()));
            }
            Ok(Ok(tls)) => tls,
        };
        let peer = self.peer(&tls).map_err(|refusal| refusal.word())?;
        let exporter = tls
            .get_ref()
            .1
            .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
            .map_err(|_| "failed")?;
        Ok((tls, Caller { remote, peer, exporter }))
    }

    /// Before it has said who it is: whoever calls from where somebody lives comes to renew.
    fn who(&self, remote: RemoteAddr) -> Who {
        let now = self.authority.clock().seconds();
        let lives = self.authority.live().is_inhabited(remote.0.ip().to_canonical(), now);
        if lives { Who::Renewing } else { Who::New }
    }

    /// Who the verified certificate says the caller is; nobody, if it presented none.
    fn peer(&self, tls: &TlsStream<TcpStream>) -> Result<Option<Peer>, Refusal> {
        let Some(chain) = tls.get_ref().1.peer_certificates() else {
            return Ok(None);
        };
        peer(chain, &self.authority.bundle(), self.authority.clock().now(), Role::Client).map(Some)
    }
}

/// Does this work; its turn ends with it, or when it has taken too long.
async fn in_turn<T>(turn: Turn, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if let Ok(done) = timeout(HANDSHAKE_TURN, &mut work).await {
        return done;
    }
    drop(turn);
    work.await
}
