//! Mesh connections over loopback, both ends on one thread: from nothing to an accepted use, and
//! one use more on a connection that is there. Called by the connection benches and by `traffic`.
//!
//! Never: a workload's stream; that is `traffic`.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use myelin_sidecar::addr::Endpoint;
use myelin_sidecar::relay::Link;
use myelin_sidecar::tls::{self, Deadline, Offer};
use myelin_sidecar::wire::{Acceptor, Budget, Dialer, Event, Side};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::credentials::{ADDRESS, Sides};

/// Longer than any step takes, under valgrind too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Benches measure a connection, not how often it is renewed.
const ENDLESS: Budget = Budget { max_uses: NonZeroU64::MAX, max_bytes: NonZeroU64::MAX };

const GOOD: &str = "both sides are good";

const LOOPBACK: &str = "loopback takes what it is given";

/// A listener of this process, and what dials it.
pub struct Street {
    listener: TcpListener,
    address: SocketAddr,
}

impl Street {
    pub async fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((ADDRESS, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Both ends of a new TCP connection, Nagle off as in the product.
    pub async fn tcp(&self) -> io::Result<(TcpStream, TcpStream)> {
        let (dialled, accepted) =
            tokio::try_join!(TcpStream::connect(self.address), self.listener.accept())?;
        dialled.set_nodelay(true)?;
        accepted.0.set_nodelay(true)?;
        Ok((dialled, accepted.0))
    }

    /// A mesh connection after both hellos: TCP, the handshake, the greeting.
    pub async fn mesh(&self, sides: &Sides) -> io::Result<Mesh> {
        let (dialled, accepted) = self.tcp().await?;
        let deadline = Deadline(PATIENCE);
        let (dialled, accepted) = tokio::join!(
            tls::dial(dialled, Endpoint(self.address), Offer::Myelin1, &sides.dialer, deadline),
            tls::accept(accepted, &sides.acceptor, None, deadline),
        );
        let mut dialer = Link::new(dialled.expect(GOOD).records, Dialer::new(ENDLESS));
        let mut acceptor = Link::new(accepted.expect(GOOD).records, Acceptor::new(ENDLESS));
        let (there, back) = tokio::join!(
            dialer.greet(&[], PATIENCE, |_proof| ()),
            acceptor.greet(&[], PATIENCE, |_proof| ()),
        );
        there.and(back).expect(GOOD);
        Ok(Mesh { dialer, acceptor })
    }
}

/// A place where mesh connections are made and used again, with its runtime.
pub struct Crossing {
    sides: Sides,
    street: Street,
    mesh: Mesh,
    runtime: Runtime,
}

impl Crossing {
    /// Both sides have met, and one use of the connection at hand is over.
    pub fn new() -> Self {
        let runtime = runtime();
        let sides = Sides::new(None);
        let (street, mesh) = runtime.block_on(async {
            let street = Street::new().await.expect(LOOPBACK);
            let mut mesh = street.mesh(&sides).await.expect(LOOPBACK);
            mesh.open().await;
            mesh.end().await;
            (street, mesh)
        });
        Self { sides, street, mesh, runtime }
    }

    /// TCP alone, to see what the rest adds.
    pub fn tcp(&self) -> (TcpStream, TcpStream) {
        self.runtime.block_on(self.street.tcp()).expect(LOOPBACK)
    }

    /// From nothing to an accepted use.
    pub fn connect(&self) -> Mesh {
        self.runtime.block_on(async {
            let mut mesh = self.street.mesh(&self.sides).await.expect(LOOPBACK);
            mesh.open().await;
            mesh
        })
    }

    /// One use more of the connection at hand, from its open to both idles.
    pub fn one_more_use(&mut self) {
        let Self { mesh, runtime, .. } = self;
        runtime.block_on(async {
            mesh.open().await;
            mesh.end().await;
        });
    }
}

impl Default for Crossing {
    fn default() -> Self {
        Self::new()
    }
}

/// One thread, as each worker of the sidecar has it.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread needs only a few descriptors")
}

/// Both ends of a mesh connection.
pub struct Mesh {
    pub dialer: Link<Dialer>,
    pub acceptor: Link<Acceptor>,
}

impl Mesh {
    /// Opens a use and has it accepted.
    pub async fn open(&mut self) {
        self.dialer.control(Dialer::open).expect(GOOD);
        self.dialer.flush().await.expect(GOOD);
        let opened = self.acceptor.event(PATIENCE, |event| matches!(event, Event::Opened(_)));
        assert_eq!(opened.await.expect(GOOD), Some(true), "an open was sent");
        self.acceptor.control(Acceptor::accept).expect(GOOD);
        self.acceptor.flush().await.expect(GOOD);
        let accepted = self.dialer.event(PATIENCE, |event| matches!(event, Event::Accepted(_)));
        assert_eq!(accepted.await.expect(GOOD), Some(true), "it was accepted");
    }

    /// Ends a use that runs: fin and fin, new keys both ways, idle and idle.
    pub async fn end(&mut self) {
        self.dialer.control(|machine, out| machine.course_mut().fin(out)).expect(GOOD);
        self.acceptor.control(|machine, out| machine.course_mut().fin(out)).expect(GOOD);
        let (there, back) = tokio::join!(
            self.dialer.event(PATIENCE, |_fin| ()),
            self.acceptor.event(PATIENCE, |_fin| ()),
        );
        there.and(back).expect(GOOD);
        let (there, back) =
            tokio::join!(self.dialer.settle(PATIENCE), self.acceptor.settle(PATIENCE));
        assert!(there.expect(GOOD) && back.expect(GOOD), "another use may follow");
    }
}
