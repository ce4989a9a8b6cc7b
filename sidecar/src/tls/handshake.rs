//! From a TCP stream to a session, in either role, under one deadline. Called by `inbound` and
//! `outbound` with the snapshot that serves the whole handshake.
//!
//! Never: a second attempt; a byte of a workload before the handshake has ended well.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::verify::{Peer, Refusal, Role};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{Accepted, AcceptedAlert, Acceptor, UnbufferedServerConnection};
use rustls::{ClientConfig, CommonState, ServerConfig};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::configs::Configs;
use super::drive::Flight;
use super::refusal::HandshakeError;
use super::session::{Facts, Session, facts};
use crate::addr::Endpoint;
use crate::relay::Records;
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
        let (hello, seen) = client_hello(&tcp).await?;
        let config = choose(&hello, configs, declared)?;
        let mut tls = UnbufferedServerConnection::new(config)?;
        let mut flight = Flight::new(seen);
        flight.drive(&tcp, &mut tls).await?;
        let met = met(&tls, configs, Role::Client)?;
        Ok(met.with(Records::server(tcp, tls, flight.rest())?))
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
    let work = async {
        let (tls, flight) = shake(&tcp, name, Arc::clone(config)).await?;
        let met = met(&tls, configs, Role::Server)?;
        Ok(met.with(Records::client(tcp, tls, flight.rest())?))
    };
    let session = within(deadline, work).await?;
    if offer == Offer::Myelin1 && !session.speaks_myelin() {
        return Err(HandshakeError::UndeclaredProtocol);
    }
    Ok(session)
}

/// The client's part with a configuration of the caller's, whose verifier alone judges the peer:
/// for whoever must look at secrets, as a test of forward secrecy does.
pub async fn dial_with(
    tcp: TcpStream,
    endpoint: Endpoint,
    config: Arc<ClientConfig>,
) -> Result<Box<Records>, HandshakeError> {
    let name = ServerName::IpAddress(endpoint.ip().into());
    let (tls, flight) = shake(&tcp, name, config).await?;
    Ok(Records::client(tcp, tls, flight.rest())?)
}

async fn shake(
    tcp: &TcpStream,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<(UnbufferedClientConnection, Flight), HandshakeError> {
    let mut tls = UnbufferedClientConnection::new(config, name)?;
    let mut flight = Flight::new(Vec::new());
    flight.drive(tcp, &mut tls).await?;
    Ok((tls, flight))
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

/// Reads until the ClientHello is whole, and keeps what it read. A post-quantum one takes several
/// segments, a hostile one may come in one-byte records: rustls bounds what it takes.
async fn client_hello(tcp: &TcpStream) -> Result<(Accepted, Vec<u8>), HandshakeError> {
    let mut acceptor = Acceptor::default();
    let mut seen = Vec::new();
    loop {
        tcp.readable().await?;
        match acceptor.read_tls(&mut Seeing { tcp, seen: &mut seen }) {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok((hello, seen)),
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

/// Who the peer of a finished handshake is, and what was negotiated.
fn met(tls: &CommonState, configs: &Configs, role: Role) -> Result<Met, HandshakeError> {
    let chain = tls.peer_certificates().ok_or(Refusal::NoCertificate)?;
    // Verified a moment ago in this very handshake, so this only looks it up.
    let peer = configs.peer(chain, role)?;
    let chain = chain.to_vec();
    Ok(Met { peer, chain, facts: facts(tls), myelin: tls.alpn_protocol() == Some(wire::ALPN) })
}

struct Met {
    peer: Arc<Peer>,
    chain: Vec<CertificateDer<'static>>,
    facts: Facts,
    myelin: bool,
}

impl Met {
    fn with(self, records: Box<Records>) -> Session {
        let Self { peer, chain, facts, myelin } = self;
        Session { records, peer, chain, facts, myelin }
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

/// Reads from a stream and keeps a copy.
struct Seeing<'a> {
    tcp: &'a TcpStream,
    seen: &'a mut Vec<u8>,
}

impl io::Read for Seeing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.tcp.try_read(into)?;
        self.seen.extend_from_slice(&into[..bytes]);
        Ok(bytes)
    }
}
