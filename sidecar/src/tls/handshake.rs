//! From a TCP stream to a session, in either role, under one deadline. Called by `inbound` and
//! `outbound` with the snapshot that serves the whole handshake.
//!
//! Never: a second attempt; a byte of a workload before the handshake has ended well.

// SPDX-License-Identifier: Apache-2.0

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use myelin_identity::verify::{Refusal, Role};
use rustls::pki_types::ServerName;
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{ClientConnection, ServerConfig};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::configs::Configs;
use super::refusal::HandshakeError;
use super::session::{Session, facts};
use crate::addr::Endpoint;
use crate::relay::{RecordError, Records};
use crate::wire;

/// The most that one handshake may take, both directions and the verification included.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Duration);

/// What an inbound port takes besides `myelin/1`: nothing, or peers that speak plain mTLS with
/// this ALPN (`None`: without one).
pub type Declared<'a> = Option<Option<&'a [u8]>>;

/// Which protocol the dialled peer is known to speak; only that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer<'a> {
    Myelin1,
    Plain { alpn: Option<&'a [u8]> },
}

/// Takes the server's part. The ClientHello decides between `myelin/1` and what was declared.
pub async fn accept(
    tcp: TcpStream,
    configs: &Configs,
    declared: Declared<'_>,
    deadline: Deadline,
) -> Result<Session, HandshakeError> {
    let work = async {
        let hello = client_hello(&tcp).await?;
        let config = choose(&hello, configs, declared)?;
        let tls = match hello.into_connection(config) {
            Ok(tls) => tls,
            Err((error, alert)) => return Err(refuse(&tcp, error, alert)),
        };
        finish(Records::new(tcp, tls), configs).await
    };
    within(deadline, work).await
}

/// Takes the client's part towards `endpoint`.
pub async fn dial(
    tcp: TcpStream,
    endpoint: Endpoint,
    offer: Offer<'_>,
    configs: &Configs,
    deadline: Deadline,
) -> Result<Session, HandshakeError> {
    let config = match offer {
        Offer::Myelin1 => Some(configs.dial_mesh()),
        Offer::Plain { alpn } => configs.dial_plain(alpn),
    };
    let config = config.ok_or(HandshakeError::UndeclaredProtocol)?;
    // An address as the server's name is not sent as SNI: nothing about the peer leaks.
    let name = ServerName::IpAddress(endpoint.ip().into());
    let tls = ClientConnection::new(Arc::clone(config), name)?;
    let session = within(deadline, finish(Records::new(tcp, tls), configs)).await?;
    if offer == Offer::Myelin1 && !session.speaks_myelin() {
        return Err(HandshakeError::UndeclaredProtocol);
    }
    Ok(session)
}

async fn within<F>(deadline: Deadline, work: F) -> Result<Session, HandshakeError>
where
    F: Future<Output = Result<Session, HandshakeError>>,
{
    match tokio::time::timeout(deadline.0, work).await {
        Ok(result) => result,
        Err(_) => Err(HandshakeError::Timeout(deadline.0)),
    }
}

/// Reads until the ClientHello is whole. A post-quantum one takes several segments, a hostile one
/// may come in one-byte records: rustls bounds what it keeps.
async fn client_hello(tcp: &TcpStream) -> Result<Accepted, HandshakeError> {
    let mut acceptor = Acceptor::default();
    loop {
        tcp.readable().await?;
        match acceptor.read_tls(&mut TryRead(tcp)) {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err((error, alert)) => return Err(refuse(tcp, error, alert)),
        }
    }
}

fn choose(
    hello: &Accepted,
    configs: &Configs,
    declared: Declared<'_>,
) -> Result<Arc<ServerConfig>, HandshakeError> {
    let hello = hello.client_hello();
    let mut offers = hello.alpn().into_iter().flatten();
    if offers.any(|name| name == wire::ALPN) {
        return Ok(Arc::clone(configs.accept_mesh()));
    }
    let config = declared.and_then(|alpn| configs.accept_plain(alpn));
    config.map(Arc::clone).ok_or(HandshakeError::UndeclaredProtocol)
}

/// Drives the handshake to its end and asks who the peer is.
async fn finish(mut records: Records, configs: &Configs) -> Result<Session, HandshakeError> {
    if let Err(error) = poll_fn(|cx| poll_handshake(&mut records, cx)).await {
        // The alert that says why is pending; it leaves if the socket takes it at once.
        let _ = poll_fn(|cx| Poll::Ready(records.poll_flush(cx).is_ready())).await;
        return Err(error.into());
    }
    let chain = records.tls().peer_certificates().ok_or(Refusal::NoCertificate)?;
    let role = match records.tls() {
        rustls::Connection::Client(_) => Role::Server,
        rustls::Connection::Server(_) => Role::Client,
    };
    // Verified a moment ago in this very handshake, so this only looks it up.
    let peer = configs.peer(chain, role)?;
    let facts = facts(records.tls());
    Ok(Session { records, peer, facts })
}

fn poll_handshake(records: &mut Records, cx: &mut Context<'_>) -> Poll<Result<(), RecordError>> {
    loop {
        ready!(records.poll_flush(cx))?;
        if !records.tls().is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        match ready!(records.poll_read(cx))? {
            crate::relay::Arrived::Progress => {}
            crate::relay::Arrived::CleanEnd => return Poll::Ready(Err(RecordError::Truncated)),
        }
    }
}

/// Sends the alert if the socket takes it at once; the peer is refused either way. Who speaks no
/// TLS gets a reset and not one byte: an alert is noise to a plaintext client.
fn refuse(tcp: &TcpStream, error: rustls::Error, mut alert: AcceptedAlert) -> HandshakeError {
    let error = HandshakeError::from(error);
    if matches!(error, HandshakeError::Plaintext) {
        // A socket that is gone already needs no reset.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        return error;
    }
    let mut bytes = Vec::new();
    if alert.write_all(&mut bytes).is_ok() {
        let _ = tcp.try_write(&bytes);
    }
    error
}

struct TryRead<'a>(&'a TcpStream);

impl io::Read for TryRead<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}
