//! Several CA replicas on one real etcd: what one does the others know, and what becomes of them
//! when one of them, the network or etcd fails (T37). Replicas run in this process, each with
//! its own data directory, doors and connection to etcd.
//!
//! Never: asserts on what a replica remembers; all is asked at its doors.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod etcd;
mod failures;
#[path = "../harness/mod.rs"]
mod harness;
mod replay;
mod together;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use harness::*;
use myelin_ca::app::{Builder, Running};
use myelin_ca::authority::tokens::TokenRequest;
use myelin_ca::config::{EtcdFlags, SealKeySource, StoreConfig};
use myelin_ca::operator::{Answer, Ask};
use myelin_ca::template::{Lifetimes, MAX_LIFETIME, MIN_LIFETIME};
use myelin_identity::issuance::{
    BundleUpdate, DirectoryAnswer, DirectoryQuestion, JoinToken, proto,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// What the documentation promises from a change at one replica to those who watch another.
pub(crate) const PROMISED: Duration = Duration::from_secs(2);
/// Far above anything that is waited for: a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One replica and its data directory.
pub(crate) struct Replica {
    pub(crate) running: Running,
    dir: tempfile::TempDir,
    time: Arc<AtomicU64>,
}

/// The seal key that the replicas of a test share.
pub(crate) struct SealKey(tempfile::TempDir);

impl SealKey {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("seal.key")
    }
}

impl Replica {
    /// Starts a replica that knows etcd by these ports.
    pub(crate) async fn start(ports: &[u16], key: &SealKey) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, ports, key).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, ports: &[u16], key: &SealKey) -> Self {
        let (default, longest) = (MAX_LIFETIME, MAX_LIFETIME);
        let lifetimes = Lifetimes { default, shortest: MIN_LIFETIME, longest };
        let mut config = config(dir.path().join("data"), lifetimes);
        config.store = store(ports);
        config.keys.seal_key = SealKeySource::File(key.path());
        let time = Arc::new(AtomicU64::new(0));
        let running = Builder::new(config).clock(clock(&time)).start().await.unwrap();
        Self { running, dir, time }
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Ends it as a stop does; its data directory stays.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.running.stop().await;
        self.dir
    }

    pub(crate) fn target(&self) -> Target {
        let grpc = ("127.0.0.1".parse::<std::net::IpAddr>().unwrap(), self.running.grpc.port());
        let bundle = self.running.authority().bundle();
        Target { grpc: grpc.into(), bundle, clock: clock(&self.time) }
    }

    pub(crate) async fn token(&self, id: &str, address: &str) -> JoinToken {
        let request = TokenRequest {
            spiffe_id: id.to_owned(),
            addresses: vec![address.parse().unwrap()],
            ports: vec![],
            protocol: String::new(),
            ttl_seconds: 600,
        };
        match self.running.ask(Ask::CreateToken(request)).await.unwrap() {
            Answer::Token(made) => made.token.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn join(&self, id: &str, address: &str) -> (Host, Held) {
        let token = self.token(id, address).await;
        let host = Host::new();
        let held = issue(&self.target(), &host, By::Token(&token), &Intent::new()).await.unwrap();
        (host, held)
    }

    /// A watch of bundle and deny list by this SVID's holder.
    pub(crate) async fn watch(&self, held: &Held) -> Watch {
        let mut connected = self.target().connect(Some(held)).await;
        let (open, acks) = mpsc::channel(1);
        let updates = connected.client.watch_bundle(ReceiverStream::new(acks)).await.unwrap();
        Watch { updates: updates.into_inner(), _open: open, _connected: connected }
    }

    /// Asks this replica who lives at an address, and goes on listening.
    pub(crate) async fn directory(&self, held: &Held, address: &str) -> Directory {
        let mut connected = self.target().connect(Some(held)).await;
        let (open, questions) = mpsc::channel(1);
        let address = address.parse().unwrap();
        open.send(DirectoryQuestion { address, port: 80, forget: false }.into()).await.unwrap();
        let answers = connected.client.watch_directory(ReceiverStream::new(questions)).await;
        let answers = answers.unwrap().into_inner();
        Directory { answers, _open: open, _connected: connected }
    }
}

pub(crate) fn store(ports: &[u16]) -> StoreConfig {
    let endpoint = |port| format!("http://127.0.0.1:{port}").parse().unwrap();
    StoreConfig::Etcd(EtcdFlags {
        endpoints: ports.iter().map(endpoint).collect(),
        ca: None,
        own: None,
        prefix: "/myelin/prod.example".to_owned(),
    })
}

pub(crate) struct Watch {
    updates: Streaming<proto::BundleUpdate>,
    _open: mpsc::Sender<proto::BundleAck>,
    _connected: Connected,
}

impl Watch {
    /// Epoch of the deny list, and when the store last confirmed it.
    pub(crate) async fn next(&mut self) -> (u64, u64) {
        let update = timeout(PATIENCE, self.updates.message()).await.expect("a heartbeat in time");
        let update = BundleUpdate::try_from(update.unwrap().unwrap()).unwrap();
        let list = update.deny_list.unwrap().list;
        (list.epoch(), list.said_at())
    }
}

pub(crate) struct Directory {
    answers: Streaming<proto::DirectoryAnswer>,
    _open: mpsc::Sender<proto::DirectoryQuestion>,
    _connected: Connected,
}

impl Directory {
    /// Who lives there, at the next answer.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("an answer in time");
        let answer = DirectoryAnswer::try_from(answer.unwrap().unwrap()).unwrap();
        answer.id.map(|id| id.to_string())
    }
}

/// The `n`th workload's ID and address.
pub(crate) fn workload(n: u8) -> (String, String) {
    (format!("spiffe://prod.example/ns/shop/sa/w{n}"), format!("10.0.1.{n}"))
}
