//! A full handshake of both sides in memory: the product's configurations and verifier, and the
//! order of its own steps, without sockets and timers. Called by the handshake benches; `bare` is
//! the yardstick, the same certificates under rustls' own verifiers.
//!
//! Never: a resumption, a half: every call ends with two authenticated sides.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::verify::{Peer, Role};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, version};

use crate::credentials::{ADDRESS, Credential, Domain, NOW, Sides};

const GOOD: &str = "both sides are good";

/// Two ends that know each other.
pub struct Met {
    pub dialer: Connection,
    pub acceptor: Connection,
}

/// What `tls::dial` and `tls::accept` do, the last look at who the peer is included.
pub fn handshake(sides: &Sides) -> (Met, [Arc<Peer>; 2]) {
    let met = meet(sides.dialer.dial_mesh(), sides.acceptor.accept_mesh());
    let peers = [
        sides.dialer.peer(met.dialer.peer_certificates().expect(GOOD), Role::Server).expect(GOOD),
        sides
            .acceptor
            .peer(met.acceptor.peer_certificates().expect(GOOD), Role::Client)
            .expect(GOOD),
    ];
    (met, peers)
}

/// Runs a handshake between two configurations to its end.
pub fn meet(dialer: &Arc<ClientConfig>, acceptor: &Arc<ServerConfig>) -> Met {
    // Enough for the longest flight: an ML-KEM share and two certificates.
    let mut flight = Vec::with_capacity(8 * 1024);
    let name = ServerName::IpAddress(ADDRESS.into());
    let mut dialer: Connection =
        ClientConnection::new(Arc::clone(dialer), name).expect(GOOD).into();
    send(&mut dialer, &mut flight);
    let mut waiting = Acceptor::default();
    let mut rest = flight.as_slice();
    while !rest.is_empty() {
        waiting.read_tls(&mut rest).expect(GOOD);
    }
    let hello = waiting.accept().expect(GOOD).expect("the flight is whole");
    let mut acceptor: Connection =
        hello.into_connection(Arc::clone(acceptor)).map_err(|(error, _)| error).expect(GOOD).into();
    while dialer.is_handshaking() || acceptor.is_handshaking() {
        carry(&mut acceptor, &mut dialer, &mut flight);
        carry(&mut dialer, &mut acceptor, &mut flight);
    }
    Met { dialer, acceptor }
}

/// All that one end has to say, to the other.
pub fn carry(from: &mut Connection, to: &mut Connection, flight: &mut Vec<u8>) {
    send(from, flight);
    let mut rest = flight.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect(GOOD);
        to.process_new_packets().expect(GOOD);
    }
}

fn send(from: &mut Connection, flight: &mut Vec<u8>) {
    flight.clear();
    while from.wants_write() {
        from.write_tls(flight).expect("a vector takes all");
    }
}

/// rustls as it comes: its default groups and verifiers, the chain verified each time.
pub fn bare() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let domain = Domain::new();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(domain.bundle.roots().cloned());
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let time: Arc<dyn TimeProvider> = Arc::new(Fixed);
    let Credential { chain, key } = domain.issue("web");
    let servers =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let mut dialer = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&time))
        .with_protocol_versions(&[&version::TLS13])
        .expect(GOOD)
        .with_webpki_verifier(servers.build().expect(GOOD))
        .with_client_auth_cert(chain, key)
        .expect(GOOD);
    dialer.resumption = Resumption::disabled();
    dialer.enable_sni = false;
    let Credential { chain, key } = domain.issue("orders");
    let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let mut acceptor = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&version::TLS13])
        .expect(GOOD)
        .with_client_cert_verifier(clients.build().expect(GOOD))
        .with_single_cert(chain, key)
        .expect(GOOD);
    acceptor.session_storage = Arc::new(NoServerSessionStorage {});
    acceptor.send_tls13_tickets = 0;
    (Arc::new(dialer), Arc::new(acceptor))
}

#[derive(Debug)]
struct Fixed;

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW)))
    }
}
