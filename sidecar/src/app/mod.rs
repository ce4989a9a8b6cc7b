//! The only room that knows all rooms: builds them from a configuration, ties them together, and
//! takes them down again. Called by `main`.
//!
//! Never: decides about a connection, parses a value, outlives its own grace period.

// SPDX-License-Identifier: Apache-2.0

mod health;
mod logs;
mod reload;
mod shared;
mod view;
mod wiring;
mod worker;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::addr::Clock;
use crate::admin::{AdminError, AdminSocket, AllowedUids, OpsPort};
use crate::auditor::Auditor;
use crate::config::{self, Config, ConfigError};
use crate::credentials::{self, Desk, StartError};
use crate::directory::{Directory, Learned, OwnAddressError};
use crate::drain::{Closing, Door};
use crate::intercept::InterceptError;
use crate::metrics::Metrics;
use crate::net::{Dialer, OwnAddresses, own_addresses, raise_descriptor_limit};
use crate::probes::{ProbeError, ProbePort};
use crate::proofs::{Duty, Judge, Seen};
use crate::services::ServiceDesk;
use crate::unix_socket::SocketError;
use crate::workload_api::WorkloadApi;
use health::Readiness;
pub use logs::{LogError, Logs};
use shared::{Listen, Shared};
use view::Operator;
pub use wiring::TokenError;
use worker::Worker;
pub use worker::WorkerError;

/// Descriptors that are not a connection's: listeners, admin, logs, the CA, and a margin.
const OWN_DESCRIPTORS: u64 = 64;

/// A connection holds two streams, and a third for a moment while one is reset.
const DESCRIPTORS_A_CONNECTION: u64 = 3;

/// One descriptor in so many may belong to a mesh connection between two uses: enough for the burst
/// that comes back, and the rest stays with connections that are at work.
const RESTING_SHARE: u64 = 10;

/// How long the workers may take for their last words once the grace is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often the pod's own addresses are read again: an address that is added later (IPv6 after
/// duplicate detection, a second network) is served soon after.
const OWN_ADDRESSES_EVERY: Duration = Duration::from_secs(5);

/// Why the sidecar does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    OwnAddress(#[from] OwnAddressError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Probes(#[from] ProbeError),
    #[error(transparent)]
    WorkloadApi(#[from] SocketError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Intercept(#[from] InterceptError),
    #[error(
        "cannot set the mark {mark:#x} on sockets: {source}; grant CAP_NET_ADMIN, or set \
         intercept.mark = 0 and apply rules that go by the UID alone"
    )]
    Mark { mark: u32, source: io::Error },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// Runs the sidecar until a signal ends it.
pub fn run(path: &Path, logs: Logs) -> Result<(), AppError> {
    let config = config::load(path)?;
    let clock = Clock::new(|| wall_clock().as_secs());
    let (shared, seen) = build(&config, &clock)?;
    let shared = Arc::new(shared);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AppError::System { what: "start the admin runtime", source })?;
    runtime.block_on(serve(config, path.to_owned(), shared, seen, logs))
}

/// Everything from the first listener to the last connection.
async fn serve(
    config: Config,
    path: PathBuf,
    shared: Arc<Shared>,
    seen: mpsc::Receiver<Seen>,
    logs: Logs,
) -> Result<(), AppError> {
    let mut signals = Signals::catch()?;
    let socket = AdminSocket::bind(
        &config.listen.admin,
        AllowedUids::with_own(config.listen.admin_uids.iter().copied()),
    )?;
    let ops = OpsPort::bind(shared.listen.ops)?;
    let probes = wiring::probes(&config, &shared.metrics)?;
    let (workload, workload_api) = wiring::workload_api(&config, &shared)?;
    let workers = (0..wiring::workers(&config))
        .map(|index| worker::start(index, &shared))
        .collect::<Result<Vec<_>, _>>()?;
    let rosters = workers.iter().map(|worker| worker.questions.clone()).collect();
    let readiness = Arc::new(Readiness::new(&shared, wiring::rules(&config)?));
    let operator = Arc::new(Operator::new(&shared, &config, path, logs, rosters));
    tracing::info!(workers = workers.len(), most = shared.door.most(), "listening");
    let credentials = credentials::run(
        wiring::credentials(&config, shared.dialer, workload)?,
        Arc::clone(&shared.store),
        Arc::clone(&shared.desk),
        Arc::clone(&shared.metrics),
        shared.clock.clone(),
        std::future::pending(),
    );
    let ended = tokio::select! {
        started = credentials => started.map_err(AppError::from),
        never = socket.serve(Arc::<Operator>::clone(&operator)) => match never {},
        never = serve_workload(workload_api) => match never {},
        never = ops.serve(Arc::<Readiness>::clone(&readiness)) => match never {},
        never = serve_probes(probes) => match never {},
        never = watch_services(&shared, &config) => match never {},
        never = watch_policies(&shared, &config) => match never {},
        never = Box::pin(audit(&shared, &config, seen)) => match never {},
        never = follow_changes(&shared) => match never {},
        never = follow_addresses(&shared, &config) => match never {},
        () = signals.until_told_to_end(&operator) => Ok(()),
    };
    leave(&shared, workers, config.limits.drain_timeout).await;
    ended
}

/// Nothing is served, for ever, where nothing is configured.
async fn serve_workload(api: Option<WorkloadApi>) -> Infallible {
    match api {
        Some(api) => Box::pin(api.serve()).await,
        None => std::future::pending().await,
    }
}

async fn serve_probes(port: Option<ProbePort>) -> Infallible {
    match port {
        Some(port) => Box::pin(port.serve()).await,
        None => std::future::pending().await,
    }
}

async fn watch_services(shared: &Shared, config: &Config) -> Infallible {
    match wiring::service_watch(config, shared) {
        Some(watch) => Box::pin(watch.run()).await,
        None => std::future::pending().await,
    }
}

async fn watch_policies(shared: &Shared, config: &Config) -> Infallible {
    match wiring::policy_watch(config, shared) {
        Some(watch) => Box::pin(watch.run()).await,
        None => std::future::pending().await,
    }
}

/// Lets running connections finish for `grace`, then cuts what is left.
async fn leave(shared: &Arc<Shared>, workers: Vec<Worker>, grace: Duration) {
    let (open, idle) = (shared.door.inside(), shared.door.resting());
    // First the door, then the word: whoever reads it may rely on it that nothing new begins.
    shared.door.close(Closing::Leaving);
    tracing::info!(open, idle, ?grace, "leaving");
    let left = shared.door.emptied(grace).await;
    if left > 0 {
        tracing::warn!(left, "the grace is over; cutting what still runs");
    }
    shared.door.close(Closing::Cut);
    shared.door.emptied(LAST_WORDS).await;
    shared.over.store(true, Ordering::Relaxed);
    for worker in workers {
        // A worker that panicked has said so itself.
        let _ = worker.thread.join();
    }
}

/// Compares checkpoints. A fork ends what stands on the forked log: running uses are judged again,
/// idle connections part.
async fn audit(shared: &Shared, config: &Config, seen: mpsc::Receiver<Seen>) -> Infallible {
    let auditor = Auditor {
        config: wiring::auditor(config, shared.dialer, shared.clock.clone()),
        judge: &shared.judge,
        metrics: &shared.metrics,
        on_fork: &|| {
            if let Err(error) = shared.store.begin_generation() {
                tracing::error!("idle connections to peers of a forked log stay: {error}");
            }
            shared.world_changed();
        },
    };
    auditor.run(seen).await
}

fn build(config: &Config, clock: &Clock) -> Result<(Shared, mpsc::Receiver<Seen>), AppError> {
    let descriptors = raise_descriptor_limit()
        .map_err(|source| AppError::System { what: "read the descriptor limit", source })?;
    let own = find_own(config)?;
    let directory = Directory::new(config.directory.clone());
    directory.check_own(own.as_slice())?;
    let mark = wiring::mark(config);
    let dialer = Dialer::new(mark, config.limits.connect_timeout);
    dialer.probe().map_err(|source| AppError::Mark { mark: mark.unwrap_or_default(), source })?;
    let ours = descriptors.saturating_sub(OWN_DESCRIPTORS);
    let most_resting = ours / RESTING_SHARE;
    let affordable = (ours - most_resting) / DESCRIPTORS_A_CONNECTION;
    let most = affordable.min(config.limits.max_connections.into());
    let count = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
    let learned = Arc::new(ArcSwap::from_pointee(Learned::default()));
    let services = Arc::new(ArcSwap::from_pointee(wiring::services()));
    let metrics = Arc::new(Metrics::new());
    let policy_desk = wiring::policy_desk(config, &metrics, clock);
    let (judge, seen) = Judge::new(config.proofs.witnesses.clone(), Arc::clone(&metrics));
    let shared = Shared {
        listen: Listen {
            inbound: config.listen.inbound,
            outbound: config.listen.outbound,
            ops: config.listen.ops,
            probes: (!config.probes.is_empty()).then_some(config.listen.probes),
        },
        inbound_config: wiring::inbound(config),
        outbound_config: wiring::outbound(config),
        metrics,
        door: Door::with_rest(count(most), count(most_resting)),
        clock: clock.clone(),
        store: wiring::store(config, clock, &judge),
        desk: Desk::new(Arc::clone(&learned)),
        learned,
        service_desk: ServiceDesk::new(Arc::clone(&services), config.services.is_some()),
        services,
        policy_desk,
        directory: Arc::new(ArcSwap::from_pointee(directory)),
        own: Arc::new(ArcSwap::from_pointee(own)),
        dialer,
        judge,
        world: watch::Sender::new(0),
        over: AtomicBool::new(false),
    };
    Ok((shared, seen))
}

fn find_own(config: &Config) -> Result<OwnAddresses, AppError> {
    if config.addresses.is_empty() {
        let what = "read this pod's addresses";
        return own_addresses().map_err(|source| AppError::System { what, source });
    }
    Ok(OwnAddresses::named(config.addresses.clone()))
}

/// New credentials, bundles, deny lists and policies are a reason to judge running uses again.
async fn follow_changes(shared: &Shared) -> Infallible {
    let mut store = shared.store.subscribe();
    let mut policies = shared.policy_desk.subscribe();
    let mut said = None;
    loop {
        let changed = tokio::select! {
            changed = store.changed() => changed,
            changed = policies.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
        shared.world_changed();
        let duty = shared.store.load().map(|snapshot| Duty::of(&snapshot.bundle));
        if let Some(duty) = duty.filter(|duty| said != Some(*duty)) {
            shared.metrics.log_roots(duty.logged, duty.roots - duty.logged);
            match duty.logged < duty.roots {
                true => tracing::warn!("{duty}"),
                false => tracing::info!("{duty}"),
            }
            said = Some(duty);
        }
    }
}

async fn follow_addresses(shared: &Shared, config: &Config) -> Infallible {
    loop {
        tokio::time::sleep(OWN_ADDRESSES_EVERY).await;
        match find_own(config) {
            Ok(own) if own != **shared.own.load() => shared.own.store(Arc::new(own)),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "keeping the addresses known before"),
        }
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn catch() -> Result<Self, AppError> {
        let catch = |kind| {
            signal(kind).map_err(|source| AppError::System { what: "catch signals", source })
        };
        Ok(Self {
            term: catch(SignalKind::terminate())?,
            int: catch(SignalKind::interrupt())?,
            hup: catch(SignalKind::hangup())?,
        })
    }

    /// SIGHUP reads the configuration again; SIGTERM and SIGINT end.
    async fn until_told_to_end(&mut self, operator: &Operator) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => operator.reload_and_log(),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "app is where the wall clock enters")]
fn wall_clock() -> Duration {
    // A clock before 1970 reads as 1970: every certificate is then not yet valid, which says it.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
