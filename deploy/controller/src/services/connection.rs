//! One authenticated connection of a sidecar: its bytes, who is at the other end, and for how long it may
//! stay. Called by `serve`, which hands it to HTTP/2.
//!
//! Never: outlives its peer's right to be there, or lives without a use.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use myelin_identity::verify::{Peer, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::transport::server::Connected;

/// Without a stream for so long, a connection is closed: a sidecar opens its own at once.
const STREAM_WITHIN: Duration = Duration::from_secs(10);
/// How often the peer of a connection is judged again by its dates alone.
const JUDGED_EVERY: Duration = Duration::from_secs(5);
/// After its streams were told why, before the connection is closed: a round trip, or a slow one.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection, and whether it may still be told anything.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) peer: Arc<Peer>,
    life: Arc<Life>,
}

/// What streams and connection know of each other.
struct Life {
    streams: AtomicUsize,
    /// Why it is over.
    over: watch::Sender<Option<Refusal>>,
    /// A stream began or ended.
    changed: tokio::sync::Notify,
}

/// One stream's hold on its connection.
pub(super) struct Use(Arc<Life>);

impl Caller {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        let (over, changed) = (watch::Sender::new(None), tokio::sync::Notify::new());
        Self { peer, life: Arc::new(Life { streams: AtomicUsize::new(0), over, changed }) }
    }

    /// A stream begins.
    pub(super) fn begin(&self) -> Use {
        self.life.streams.fetch_add(1, Ordering::Relaxed);
        self.life.changed.notify_one();
        Use(Arc::clone(&self.life))
    }

    /// Resolves when the connection may stay no longer. `judge` is asked at each change of credentials, and by
    /// the clock.
    async fn stays(
        &self,
        mut changes: watch::Receiver<u64>,
        judge: impl Fn(&Peer) -> Result<(), Refusal>,
    ) {
        let mut beat = interval(JUDGED_EVERY);
        let mut idle_until = Instant::now() + STREAM_WITHIN;
        loop {
            let is_idle = self.life.streams.load(Ordering::Relaxed) == 0;
            tokio::select! {
                _ = changes.changed() => {}
                _ = beat.tick() => {}
                () = self.life.changed.notified() => {
                    idle_until = Instant::now() + STREAM_WITHIN;
                    continue;
                }
                () = sleep_until(idle_until), if is_idle => return,
            }
            if let Err(refusal) = judge(&self.peer) {
                tracing::info!(peer = %self.peer.id, outcome = refusal.word(), "no sidecar of ours any more");
                self.life.over.send_replace(Some(refusal));
                return sleep(LAST_WORDS).await;
            }
        }
    }
}

impl Use {
    /// Resolves with what a stream is told when its peer may be told nothing more.
    pub(super) async fn over(&self) -> Status {
        let mut over = self.0.over.subscribe();
        let why = over.wait_for(Option::is_some).await;
        let why = why.ok().and_then(|why| why.as_ref().map(ToString::to_string));
        Status::permission_denied(why.unwrap_or_default())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// One connection as tonic wants it; it outlives nobody's permit.
pub(super) struct Connection {
    tls: TlsStream<tokio::net::TcpStream>,
    caller: Caller,
    /// Never sent on: whoever held the other end is gone, so the connection goes.
    ended: oneshot::Receiver<()>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Watches over it from now on.
    pub(super) fn new(
        tls: TlsStream<tokio::net::TcpStream>,
        caller: Caller,
        place: OwnedSemaphorePermit,
        changes: watch::Receiver<u64>,
        judge: impl Fn(&Peer) -> Result<(), Refusal> + Send + 'static,
    ) -> Self {
        let (mut end, ended) = oneshot::channel::<()>();
        let watched = caller.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = watched.stays(changes, judge) => {}
                () = end.closed() => {}
            }
        });
        Self { tls, caller, ended, is_over: false, _place: place }
    }

    /// Whoever reads or writes hears that it is over, however long the other side stays silent.
    fn over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_over = self.is_over || Pin::new(&mut self.ended).poll(cx).is_ready();
        if self.is_over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
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
        self.over(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.over(cx)?;
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.over(cx)?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
