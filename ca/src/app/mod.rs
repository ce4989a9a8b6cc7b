//! Builds the CA and ties its rooms together: the only room that knows them all, and the only one
//! that reads the system's clock. `main` runs it; tests start it in their own process through
//! [`Builder`].
//!
//! Never: decides anything about a certificate.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use myelin_identity::seal::SealError;
use rustls_pki_types::UnixTime;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{Api, admin, listen, ops, tls};
use crate::attest::kubernetes::KeysError;
use crate::attest::machine::MachineError;
use crate::authority::{Authority, AuthorityError, IssueError};
use crate::clock::Clock;
use crate::config::{ConfigError, ServeConfig};
use crate::datadir::{DataDir, DataDirError};
use crate::federation::FederationError;
use crate::journal::Journal;
use crate::log::{LogError, Logs};
use crate::metrics::Metrics;
use crate::offline_root::OfflineRootError;
use crate::operator::{Answer, Ask, IssuerError, OperatorError, answer_running};
use crate::random;
use crate::replica::{ReplicaError, ReplicaId};
use crate::rotation::{Home, Pin, Rotation, RotationError, read_bundle};
use crate::signer::SignerError;
use crate::store::StoreError;
use crate::template::MIN_LIFETIME;

pub mod ceremony;
mod cluster;
mod console;
mod descriptors;
mod endpoint;
mod evidence;
mod foreign;
mod heartbeat;
mod issuers;
mod keys;
mod ladder;
mod shared;
mod upkeep;
mod waiting;
mod witnesses;

pub use console::{ask_offline_or_online, verify_log};
pub use endpoint::EndpointError;

/// How long open requests may take to finish after SIGTERM: twice the longest request.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Connections that the kernel keeps until they are accepted: a storm of all sidecars arrives within one
/// round trip, and those that find no room come again a second later. The kernel's own limit
/// (net.core.somaxconn) is 4096 as well.
const BACKLOG: u32 = 4096;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Clock::new(UnixTime::now)
}

/// Why the CA cannot start or go on: configuration and machine, each with the fix in its line.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("cannot draw random bytes from the operating system")]
    NoRandomness,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{flag} {}: {cause}; name a PEM file that etcd's operator gave you", path.display())]
    EtcdFile { flag: &'static str, path: PathBuf, cause: io::Error },
    #[error("the Kubernetes API cannot be reached: {cause}; outside of a pod name a --kubeconfig")]
    Cluster { cause: String },
    #[error("no server runs on {}, and the state of this replica is not in its data directory; start the server, or ask one that runs by its --data", .0.display())]
    NoServer(PathBuf),
    #[error("{} holds no replica.id, so no CA has logged anything here; name the --data of one that has", .0.display())]
    NeverServed(PathBuf),
    #[error("no server runs on {}, and its state is not in there; start the server, or say where the state is, as it does: --store etcd --etcd-endpoint ...", .0.display())]
    StateElsewhere(PathBuf),
    #[error("what was sealed is there but the seal key {} is not; copy it from another replica or restore it from your backup, nothing else opens the CA's keys", .0.display())]
    SealKeyMissing(PathBuf),
    #[error("cannot make a seal key: {0}")]
    SealKey(#[from] SealError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("cannot issue the CA's own SVID: {0}")]
    OwnSvid(#[from] IssueError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot listen on {address} ({flag}): {cause}; free the port or choose another")]
    Listen { flag: &'static str, address: SocketAddr, cause: io::Error },
    #[error("cannot make the admin socket {}: {cause}", path.display())]
    Admin { path: PathBuf, cause: io::Error },
    #[error("cannot ask the server on {}: {cause}; is it this version of myelin-ca?", path.display())]
    Ask { path: PathBuf, cause: io::Error },
    #[error("--kubernetes-jwks: {0}")]
    Keys(#[from] KeysError),
    #[error(transparent)]
    MachineCas(#[from] MachineError),
    #[error("cannot read {}: {cause}; expected CA certificates in PEM", path.display())]
    CaFile { path: PathBuf, cause: io::Error },
    #[error(
        "no roots to recognise the witnesses' servers by: {0}; install ca-certificates, or name a PEM file by --witness-roots"
    )]
    WitnessRoots(String),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    OfflineRoot(#[from] OfflineRootError),
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error("cannot write {}: {cause}; its key is made and waits for an answer: then run myelin-ca issuer request --again --out DIRECTORY", path.display())]
    RequestFile { path: PathBuf, cause: io::Error },
    #[error("cannot use {}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Federation(#[from] FederationError),
    #[error("the gRPC port failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A CA about to start.
pub struct Builder {
    config: ServeConfig,
    clock: Clock,
}

/// A CA that serves.
pub struct Running {
    /// Where sidecars connect; the port is the real one even if 0 was asked for.
    pub grpc: SocketAddr,
    /// Where probes and scrapers connect.
    pub ops: SocketAddr,
    /// Where other trust domains fetch our bundle, if it is served.
    pub federation: Option<SocketAddr>,
    authority: Arc<Authority>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Builder {
    pub fn new(config: ServeConfig) -> Self {
        Self { config, clock: system_clock() }
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts everything; when this returns, the ports answer.
    pub async fn start(self) -> Result<Running, AppError> {
        let Self { config, clock } = self;
        let data = DataDir::open_or_make(&config.data)?;
        let metrics = Metrics::new()?;
        let authority = Arc::new(open_authority(&config, &data, clock.clone(), &metrics).await?);
        if config.authority.lifetimes.shortest < MIN_LIFETIME {
            metrics.short_lifetimes.set(1);
            tracing::warn!(
                "SHORT LIFETIMES ARE ALLOWED: for tests only; in production drop --allow-short-lifetimes"
            );
        }
        let attestors = evidence::attestors(&config.attest, &config.trust_domain, &clock).await?;
        let attestors = Arc::new(attestors);
        authority.asks(attestors.clone());
        let own = authority.issue_own().await?;
        let due = (upkeep::renew_at(&own, clock.seconds()), own.dress);
        metrics.own_svid_not_after.set(own.validity.not_after as f64);
        let endpoint = foreign::open(&config, &own, &authority).await?;
        let tls = tls::server_config(own, authority.bundle(), clock)?;
        let tls = Arc::new(ArcSwap::from_pointee(tls));
        let doors = Doors::open(&config, &data).await?;
        let (grpc, ops) = (doors.grpc.1, doors.ops.1);

        let (stop, stopping) = watch::channel(false);
        let (ready, readiness) = watch::channel(Ok(()));
        let mut tasks = JoinSet::new();
        let shared = (authority.clone(), metrics.clone(), stopping.clone());
        let (federation, endpoint) = foreign::start(endpoint, shared, &mut tasks).await?;
        let api = Api::new(authority.clone(), attestors, metrics.clone(), stopping.clone());
        let served = tls.clone();
        tasks.spawn(async move {
            if let Err(error) = listen::serve(doors.grpc.0, served, api).await {
                tracing::error!(%error, "the gRPC port failed");
            }
        });
        let shown = ops::Ops { authority: authority.clone(), metrics: metrics.clone(), readiness };
        tasks.spawn(ops::serve(doors.ops.0, shown, stopping.clone()));
        tasks.spawn(admin::serve(doors.admin, admin::answers(authority.clone()), stopping.clone()));
        let (saying, said) = watch::channel(Ok(()));
        tasks.spawn(heartbeat::run(authority.clone(), saying, stopping.clone()));
        let (dressed, state) = ((tls, endpoint), (ready, said));
        let upkeep = upkeep::Upkeep::new(authority.clone(), metrics, dressed, due, state);
        tasks.spawn(upkeep.run(stopping));
        let bundle = authority.bundle();
        tracing::info!(trust_domain = %bundle.trust_domain(), bundle = %bundle.hash(), %grpc, %ops, "serving");
        Ok(Running { grpc, ops, federation, authority, stop, tasks })
    }
}

/// The bound listeners of the three doors, each with its real port.
struct Doors {
    grpc: (TcpListener, SocketAddr),
    ops: (TcpListener, SocketAddr),
    admin: UnixListener,
}

impl Doors {
    async fn open(config: &ServeConfig, data: &DataDir) -> Result<Self, AppError> {
        let grpc = listen_on("--listen", config.listen).await?;
        let ops = listen_on("--ops-listen", config.ops_listen).await?;
        let path = data.admin_socket();
        let admin = admin::bind(&path).map_err(|cause| AppError::Admin { path, cause })?;
        Ok(Self { grpc, ops, admin })
    }
}

async fn open_authority(
    config: &ServeConfig,
    data: &DataDir,
    clock: Clock,
    metrics: &Metrics,
) -> Result<Authority, AppError> {
    let journal = Journal::new(shared::open_store(&config.store, data).await?);
    // A start that failed over its keys leaves an empty store behind, which seals nothing.
    let made = !matches!(read_bundle(&journal).await, Ok(None));
    let vault = keys::vault(data, &config.keys, made)?;
    let home = Home { replica: replica(data)?, pin: Pin::at(data.trust_pin()) };
    // The keys of the logs come first: CA certificates name them.
    let (name, seal_key, log) =
        (config.trust_domain.to_string(), vault.seal_key(), metrics.log.clone());
    let logs = Logs::start(data.path(), &journal, seal_key, &name, &home.replica, log).await?;
    if let Some(witnesses) = witnesses::open(&config.witnesses, &clock)? {
        logs.ask(&witnesses, &metrics.log);
    }
    waiting::adopt_root(&journal, config, &home.pin, logs.root.key()).await?;
    waiting::until_issuer(&journal, &vault, &home.replica, (config, data), &clock).await?;
    let now = clock.seconds();
    let trust_domain = &config.trust_domain;
    let rotation = Rotation::start(journal.clone(), trust_domain, vault, home, now).await?;
    Ok(Authority::start(journal, rotation, logs, config.authority.clone(), clock).await?)
}

fn replica(data: &DataDir) -> Result<ReplicaId, AppError> {
    let fresh = ReplicaId::from_bytes(random::bytes().map_err(|_| AppError::NoRandomness)?);
    Ok(ReplicaId::open_or_make(data.path(), fresh)?)
}

impl Running {
    /// The authority itself, for tests and embedders: tokens, bundle, live SVIDs.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Asks what an operator may ask.
    pub async fn ask(&self, question: Ask) -> Result<Answer, AppError> {
        Ok(answer_running(&self.authority, question).await?)
    }

    /// Stops taking requests, lets open ones finish, and closes the store.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, finished).await.is_err() {
            tracing::warn!("some connections did not finish in time and are cut");
            self.tasks.shutdown().await;
        }
        self.authority.logs().issuing.close().await;
        // Somebody may still hold the authority: an embedder, a question that was just cut.
        self.authority.journal().close().await;
    }
}

/// Serves until `shutdown` resolves.
pub async fn run(config: ServeConfig, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
    tokio::pin!(shutdown);
    descriptors::raise_limit();
    // A start may wait long for the first intermediate.
    let running = tokio::select! {
        started = Builder::new(config).start() => started?,
        () = &mut shutdown => return Ok(()),
    };
    shutdown.await;
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}

async fn listen_on(
    flag: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), AppError> {
    let at = |cause| AppError::Listen { flag, address, cause };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(at)?;
    // A restart must not wait for the connections of the process before it.
    socket.set_reuseaddr(true).map_err(at)?;
    socket.bind(address).map_err(at)?;
    let listener = socket.listen(BACKLOG).map_err(at)?;
    let bound = listener.local_addr().map_err(at)?;
    Ok((listener, bound))
}
