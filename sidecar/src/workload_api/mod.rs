//! The Workload API: a Unix socket on which a workload gets an SVID and a key of its own, by
//! SPIFFE's protocol and, where configured, by Envoy's secret discovery. Off unless configured.
//! Called by `app`, on the admin runtime.
//!
//! Never: hands out the key of the mesh's own connections, serves a user whom configuration does
//! not name, listens on anything but a Unix socket.

// SPDX-License-Identifier: Apache-2.0

mod authority;
mod caller;
mod door;
mod envoy;
mod follow;
mod offer;
mod seldom;
mod spiffe;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use self::caller::Callers;
use self::door::Door;
use self::envoy::Secrets;
use self::follow::Desk;
use self::offer::Sources;
use self::spiffe::Workloads;
use crate::addr::Clock;
use crate::credentials::{Store, WorkloadIdentity};
use crate::metrics::Metrics;
use crate::unix_socket::{BoundSocket, SocketError};

pub use self::caller::Allowed;

/// What configuration calls the socket's path.
const KEY: &str = "workload_api.socket";
/// Whoever may connect is decided by what the kernel says about him.
const SOCKET_MODE: u32 = 0o666;

/// Requests on one connection at once: a client has two streams, Envoy one for each secret.
const MAX_STREAMS_A_CONNECTION: u32 = 16;
/// HTTP/2 header block of a request: those of gRPC clients are under 1 KiB.
const MAX_HEADER_BYTES: u32 = 8 * 1024;

/// Generated servers and messages.
mod stubs {
    /// The service of the SPIFFE standard has no package.
    #[allow(
        clippy::all,
        clippy::use_self,
        clippy::or_fun_call,
        clippy::large_futures,
        clippy::too_many_lines,
        unreachable_pub,
        unused_qualifications,
        elided_lifetimes_in_paths
    )]
    pub(super) mod workload {
        tonic::include_proto!("_");
    }
    #[allow(
        clippy::all,
        clippy::use_self,
        clippy::or_fun_call,
        clippy::large_futures,
        clippy::too_many_lines,
        unreachable_pub,
        unused_qualifications,
        elided_lifetimes_in_paths
    )]
    pub(super) mod secrets {
        tonic::include_proto!("envoy.service.secret.v3");
    }
}

/// What the operator wrote, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub socket: PathBuf,
    /// At least one user or group.
    pub allowed: Allowed,
    /// Whether Envoy's secret discovery is served as well.
    pub sds: bool,
}

/// The bound socket with all that it serves from.
pub struct WorkloadApi {
    socket: BoundSocket,
    config: Config,
    sources: Sources,
    metrics: Arc<Metrics>,
}

impl WorkloadApi {
    /// Must be called within the runtime that will serve it.
    pub fn bind(
        config: Config,
        store: Arc<Store>,
        identity: Arc<WorkloadIdentity>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, SocketError> {
        let socket = BoundSocket::bind(&config.socket, KEY, SOCKET_MODE)?;
        Ok(Self { socket, config, sources: Sources { store, identity, clock }, metrics })
    }

    /// Serves until the future is dropped.
    pub async fn serve(self) -> Infallible {
        let Self { socket, config, sources, metrics } = self;
        tracing::info!(socket = %config.socket.display(), sds = config.sds, "workload API");
        let desk = Desk::new(sources, metrics);
        let door = Door {
            workloads: Workloads::service(desk.clone()),
            secrets: config.sds.then(|| Secrets::service(desk)),
        };
        let (callers, accepted) = Callers::new(config.allowed);
        let served = Server::builder()
            .max_concurrent_streams(MAX_STREAMS_A_CONNECTION)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .serve_with_incoming(door, ReceiverStream::new(accepted));
        tokio::select! {
            never = callers.accept(&socket.listener) => match never {},
            // It ends when nothing more comes in, and the line above never ends.
            _ = served => std::future::pending().await,
        }
    }
}
