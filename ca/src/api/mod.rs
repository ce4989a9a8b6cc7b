//! The CA's doors: gRPC over mutual TLS for sidecars, HTTP for probes and scrapers, a Unix socket
//! for operators. Each door is bounded by itself; `app` opens them all.
//!
//! Never: decides who gets a certificate, or answers a sidecar's question without an authenticated
//! peer.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::issuance::proto;
use myelin_identity::verify::Peer;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Status};

use crate::attest::{Attestors, Caller};
use crate::authority::Authority;
use crate::metrics::Metrics;

use turns::Turns;

mod accept;
pub mod admin;
mod audit;
mod bundle_watch;
mod connection;
mod counted;
mod directory_watch;
pub mod federation;
mod issue;
mod lean;
pub mod listen;
pub mod ops;
mod succession;
pub mod tls;
mod turns;

/// The stubs that tonic makes of the proto file.
#[allow(
    clippy::all,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::large_futures,
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    missing_docs
)]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/myelin.v1.rs"));
}

pub use stubs::{ca_client, ca_server};

/// Issues under way, also of callers who are gone: two groups of the store, so that one fills while the
/// other is written. The others wait in the order of `turns`.
pub const MAX_ISSUES: usize = 512;
/// Watch streams of one kind at once. A sidecar holds one of each; a fleet beyond this has several
/// replicas.
pub const MAX_WATCHES: usize = 8192;
/// Messages waiting for one slow watcher; further ones wait in the watch itself, where the newest
/// replaces the old.
const WATCH_BUFFER: usize = 4;

/// Several round trips across a continent: enough to read a status and hang up.
const LINGER: Duration = Duration::from_secs(2);

/// What is told to everybody when the process ends.
pub type Stopping = watch::Receiver<bool>;

/// The gRPC service.
#[derive(Clone)]
pub struct Api {
    authority: Arc<Authority>,
    attestors: Arc<Attestors>,
    /// One count for each clone: it has dozens of its own, and every request clones the service.
    metrics: Arc<Metrics>,
    issues: Turns,
    bundle_watches: Arc<Semaphore>,
    directory_watches: Arc<Semaphore>,
    stopping: Stopping,
}

impl Api {
    pub fn new(
        authority: Arc<Authority>,
        attestors: Arc<Attestors>,
        metrics: Metrics,
        stopping: Stopping,
    ) -> Self {
        Self {
            authority,
            attestors,
            metrics: Arc::new(metrics),
            issues: Turns::new(MAX_ISSUES),
            bundle_watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            directory_watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            stopping,
        }
    }

    /// The authenticated peer of a request, still trusted at this moment.
    fn peer<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let caller = caller(request)?;
        let peer = caller.peer.ok_or_else(|| {
            Status::unauthenticated("present the current SVID as the TLS client certificate")
        })?;
        self.judge(&peer)?;
        Ok(peer)
    }

    /// Whether a peer of an open stream may go on.
    fn judge(&self, peer: &Peer) -> Result<(), Status> {
        self.authority.judge(peer).map_err(|error| {
            let mut status = Status::permission_denied(format!("{}: {error}", error.word()));
            audit::name_reason(&mut status, error.word());
            status
        })
    }
}

/// Resolves when the process is to end.
async fn stopped(mut stopping: Stopping) {
    // An error means that the sender is gone, which is the same.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Reads on, for a moment, what nobody answers any more, so that the caller can read why.
async fn linger<T>(stream: &mut tonic::Streaming<T>) {
    let rest = async { while let Ok(Some(_)) = stream.message().await {} };
    // Whoever does not hang up within this is cut.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>().cloned();
    found
        .ok_or_else(|| Status::internal("the connection was not authenticated; please report this"))
}

#[tonic::async_trait]
impl ca_server::Ca for Api {
    async fn issue(
        &self,
        request: Request<proto::IssueRequest>,
    ) -> Result<tonic::Response<proto::IssueResponse>, Status> {
        self.answer_issue(request).await
    }

    type WatchBundleStream = bundle_watch::Updates;

    async fn watch_bundle(
        &self,
        request: Request<tonic::Streaming<proto::BundleAck>>,
    ) -> Result<tonic::Response<Self::WatchBundleStream>, Status> {
        self.answer_watch_bundle(request)
    }

    async fn succession(
        &self,
        _request: Request<proto::SuccessionRequest>,
    ) -> Result<tonic::Response<proto::SuccessionResponse>, Status> {
        Ok(self.answer_succession())
    }

    type WatchDirectoryStream = directory_watch::Answers;

    async fn watch_directory(
        &self,
        request: Request<tonic::Streaming<proto::DirectoryQuestion>>,
    ) -> Result<tonic::Response<Self::WatchDirectoryStream>, Status> {
        self.answer_watch_directory(request)
    }
}
