//! A client and a server with both relays between them, over loopback and all on one thread, so
//! that time is the CPU time of the whole path. Called by the relay benches.
//!
//! Never: a second core, a wait for anything but bytes.

// SPDX-License-Identifier: Apache-2.0

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use myelin_sidecar::metrics::{ByteCounters, Direction, Metrics, Security};
use myelin_sidecar::relay::{Carrier, Ending, Limits, Meter, Said, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{LocalSet, spawn_local};

use crate::credentials::Sides;
use crate::mesh::{Mesh, Street, runtime};

/// No bench is idle for so long.
const LIMITS: Limits = Limits { idle: Duration::from_secs(3600), answer: None, linger: None };

const LOOPBACK: &str = "loopback takes what it is given";

/// The two workloads. Their relays run for as long as the runtime does.
pub struct Traffic {
    client: TcpStream,
    server: TcpStream,
    payload: Vec<u8>,
    heard: Vec<u8>,
    local: LocalSet,
    runtime: Runtime,
}

impl Traffic {
    /// One use at work, for messages of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let runtime = runtime();
        let local = LocalSet::new();
        let (client, server) = local.block_on(&runtime, async {
            let street = Street::new().await.expect(LOOPBACK);
            let mut mesh = street.mesh(&Sides::new(None)).await.expect(LOOPBACK);
            mesh.open().await;
            let (client, outbound) = street.tcp().await.expect(LOOPBACK);
            let (inbound, server) = street.tcp().await.expect(LOOPBACK);
            let Mesh { dialer, acceptor } = mesh;
            let metrics = Metrics::new();
            spawn_local(relay(
                dialer,
                outbound,
                metrics.bytes(Direction::Outbound, Security::Mesh),
            ));
            spawn_local(relay(
                acceptor,
                inbound,
                metrics.bytes(Direction::Inbound, Security::Mesh),
            ));
            (client, server)
        });
        Self { client, server, payload: vec![0x5a; bytes], heard: vec![0; bytes], local, runtime }
    }

    /// The message from the client to the server.
    pub fn one_way(&mut self) {
        let Self { client, server, payload, heard, local, runtime } = self;
        local.block_on(runtime, async {
            pass(client, server, payload, heard).await;
        });
    }

    /// The message to the server, and as much back.
    pub fn round_trip(&mut self) {
        let Self { client, server, payload, heard, local, runtime } = self;
        local.block_on(runtime, async {
            pass(client, server, payload, heard).await;
            pass(server, client, payload, heard).await;
        });
    }
}

async fn pass(from: &mut TcpStream, to: &mut TcpStream, payload: &[u8], heard: &mut [u8]) {
    let (sent, received) = tokio::join!(from.write_all(payload), to.read_exact(heard));
    sent.expect(LOOPBACK);
    received.expect(LOOPBACK);
}

async fn relay<C: Carrier>(mut carrier: C, workload: TcpStream, counters: ByteCounters) {
    let meter = Bytes(counters);
    let ending: Ending<()> =
        run(&mut carrier, &workload, &meter, LIMITS, Said::default(), pin!(pending())).await;
    unreachable!("a use of a bench does not end: {ending:?}");
}

/// Counts as the sidecar's report does.
struct Bytes(ByteCounters);

impl Meter for Bytes {
    fn to_peer(&self, bytes: usize) {
        self.0.sent.inc_by(bytes as u64);
    }

    fn to_workload(&self, bytes: usize) {
        self.0.received.inc_by(bytes as u64);
    }
}
