//! The only room that knows all rooms: builds them from a configuration, ties them together, and
//! takes them down again. Called by `main`.
//!
//! Never: decides about a pod, parses a value.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use myelin_sidecar::addr::Clock;
use myelin_sidecar::admin::{Condition, Health, OpsPort};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing_subscriber::filter::LevelFilter;

use crate::bundle::{self, Held};
use crate::ca_address;
use crate::certificate::{Believed, Files, Identity, Keeper};
use crate::cluster::{Cluster, ClusterError};
use crate::config::{self, CaAddress, Certificate, Config, ConfigError};
use crate::config_map;
use crate::door::{self, DoorError};
use crate::metrics::Metrics;
use crate::services::{self, Directory};
use crate::webhook::Webhook;

/// After the signal to end, API servers may still be sent here until they have heard that we leave.
const LINGER: Duration = Duration::from_secs(5);

/// Why the controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "a task that should run for ever has ended: the log says why; start the controller anew"
    )]
    Ended,
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// Runs the controller until a signal ends it.
pub fn run(path: &Path, kubeconfig: Option<&Path>) -> Result<(), AppError> {
    let config = config::load(path)?;
    start_logging(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AppError::System { what: "start the runtime", source })?;
    runtime.block_on(serve(config, kubeconfig))
}

async fn serve(config: Config, kubeconfig: Option<&Path>) -> Result<(), AppError> {
    let mut end = Ends::catch()?;
    let metrics = Arc::new(Metrics::new());
    let mut readiness = Readiness::new(Arc::clone(&metrics));
    let Readiness { bundle, ca, identity, believed, leaving, .. } = readiness.clone();
    let webhook_listener = door::bind("the webhook", config.webhook.listen)?;
    let ops_listener = door::bind("/live, /ready and /metrics", config.ops)?;
    let mut keepers = Keepers { kubeconfig, cluster: None, tasks: JoinSet::new() };
    keepers.certificate(config.webhook.certificate, (&identity, believed), &metrics).await?;
    keepers.ca(config.ca, &config.settings.namespace, &ca).await?;
    let directory = keepers.directory(config.services, (&ca, &bundle), &metrics).await?;
    readiness.listed = directory.as_ref().map(|(directory, _)| directory.listed());
    let source = bundle::Source {
        path: config.bundle_file,
        trust_domain: config.settings.trust_domain.clone(),
        held: Arc::clone(&bundle),
        metrics: Arc::clone(&metrics),
    };
    keepers.tasks.spawn(async move { source.follow().await });
    if let Some(name) = config.bundle_config_map {
        let keeper = config_map::Keeper {
            cluster: keepers.cluster().await?,
            name,
            namespace: config.settings.namespace.clone(),
            trust_domain: config.settings.trust_domain.clone(),
            bundle: Arc::clone(&bundle),
            metrics: Arc::clone(&metrics),
        };
        keepers.tasks.spawn(async move { keeper.follow().await });
    }
    let webhook = Arc::new(Webhook::new(config.settings, bundle, ca, identity, metrics));
    let bound = |listener: &TcpListener| {
        let address = listener.local_addr();
        address.map_err(|source| AppError::System { what: "ask for a socket's address", source })
    };
    let (webhook_at, ops_at) = (bound(&webhook_listener)?, bound(&ops_listener)?);
    tracing::info!(webhook = %webhook_at, ops = %ops_at, "listening");
    let ended = async {
        end.told().await;
        leaving.store(true, Ordering::Relaxed);
        tracing::info!(?LINGER, "leaving");
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        // They follow for ever: one that ends has panicked, and the kubelet starts us anew.
        _ = keepers.tasks.join_next() => Err(AppError::Ended),
        never = webhook.serve(webhook_listener) => match never {},
        never = OpsPort::of(ops_listener).serve(Arc::new(readiness)) => match never {},
        never = serve_services(directory) => match never {},
        () = ended => Ok(()),
    }
}

/// What is kept right beside the answers, each in a task of its own.
struct Keepers<'k> {
    kubeconfig: Option<&'k Path>,
    /// Connected when the first one needs it.
    cluster: Option<Cluster>,
    tasks: JoinSet<Infallible>,
}

impl Keepers<'_> {
    async fn certificate(
        &mut self,
        certificate: Certificate,
        (identity, believed): (&Identity, Believed),
        metrics: &Arc<Metrics>,
    ) -> Result<(), AppError> {
        let identity = Arc::clone(identity);
        match certificate {
            Certificate::Kept(place) => {
                let (cluster, metrics) = (self.cluster().await?, Arc::clone(metrics));
                let keeper = Keeper::new(cluster, place, identity, believed, metrics);
                self.tasks.spawn(keeper.follow(unix_seconds));
            }
            Certificate::Files { certificate, key } => {
                // Whoever keeps the files keeps the registration as well.
                believed.store(true, Ordering::Relaxed);
                let files = Files { certificate, key, identity };
                self.tasks.spawn(async move { files.follow().await });
            }
        }
        Ok(())
    }

    async fn ca(
        &mut self,
        address: CaAddress,
        namespace: &str,
        held: &ca_address::Held,
    ) -> Result<(), AppError> {
        match address {
            CaAddress::Fixed(addresses) => held.store(Arc::new(addresses)),
            CaAddress::Service(service) => {
                let (cluster, held) = (self.cluster().await?, Arc::clone(held));
                let namespace = namespace.to_owned();
                let source = ca_address::Source { cluster, namespace, service, held };
                self.tasks.spawn(async move { source.follow().await });
            }
        }
        Ok(())
    }

    /// The service directory and its port, where it is configured.
    async fn directory(
        &mut self,
        config: Option<services::Config>,
        (ca, bundle): (&ca_address::Held, &Held),
        metrics: &Arc<Metrics>,
    ) -> Result<Option<(Directory, TcpListener)>, AppError> {
        let Some(config) = config else { return Ok(None) };
        let listener = door::bind("the service directory", config.listen)?;
        let (ca, bundle, metrics) = (Arc::clone(ca), Arc::clone(bundle), Arc::clone(metrics));
        let clock = Clock::new(unix_seconds);
        let cluster = self.cluster().await?;
        let directory = Directory::new(config, cluster, ca, bundle, metrics, clock);
        Ok(Some((directory, listener)))
    }

    async fn cluster(&mut self) -> Result<Cluster, ClusterError> {
        match &self.cluster {
            Some(cluster) => Ok(cluster.clone()),
            None => {
                let cluster = Cluster::connect(self.kubeconfig).await?;
                Ok(self.cluster.insert(cluster).clone())
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one wall clock")]
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).unwrap_or_default()
}

/// The webhook does not stand on the CA, so it goes on whatever becomes of the directory.
async fn serve_services(directory: Option<(Directory, TcpListener)>) -> Infallible {
    if let Some((directory, listener)) = directory
        && let Err(why) = Box::pin(directory.serve(listener)).await
    {
        tracing::error!("no sidecar is told of services until this controller starts anew: {why}");
    }
    std::future::pending().await
}

#[derive(Clone)]
struct Readiness {
    metrics: Arc<Metrics>,
    bundle: Held,
    ca: ca_address::Held,
    identity: Identity,
    believed: Believed,
    /// Where this controller tells of services.
    listed: Option<services::Listed>,
    leaving: Arc<AtomicBool>,
}

impl Readiness {
    fn new(metrics: Arc<Metrics>) -> Self {
        let (bundle, ca, identity) = (Held::default(), Default::default(), Identity::default());
        let (believed, leaving) = (Believed::default(), Arc::default());
        Self { metrics, bundle, ca, identity, believed, listed: None, leaving }
    }
}

impl Health for Readiness {
    /// Who answers lives: the kubelet starts those anew that do not.
    fn is_live(&self) -> bool {
        true
    }

    fn metrics(&self) -> String {
        self.metrics.ready(self.conditions().iter().all(|condition| condition.met));
        self.metrics.render()
    }

    fn conditions(&self) -> Vec<Condition> {
        let condition = |name, met: bool, why: &str| Condition {
            name,
            met,
            why: if met { String::new() } else { why.to_owned() },
        };
        vec![
            condition(
                "bundle",
                self.bundle.load().is_some(),
                "no trust bundle was read yet; the log says why",
            ),
            condition(
                "ca",
                !self.ca.load().is_empty(),
                "the address of the CA's Service is not known yet; the log says why",
            ),
            condition(
                "certificate",
                self.identity.load().is_some(),
                "the webhook has no certificate yet; the log says why",
            ),
            condition(
                "registration",
                self.believed.load(Ordering::Relaxed),
                "the API server is not told of the webhook's certificate; the log says why",
            ),
            // Not our SVID: the webhook must not wait for the CA. Whoever gets no handshake here asks the next one.
            condition(
                "services",
                self.listed.as_ref().is_none_or(services::Listed::is_complete),
                "Services, EndpointSlices and Pods were not all listed yet; the log says why",
            ),
            condition("listeners", !self.leaving.load(Ordering::Relaxed), "leaving"),
        ]
    }
}

struct Ends {
    term: Signal,
    int: Signal,
}

impl Ends {
    fn catch() -> Result<Self, AppError> {
        let catch = |kind| {
            signal(kind).map_err(|source| AppError::System { what: "catch signals", source })
        };
        Ok(Self { term: catch(SignalKind::terminate())?, int: catch(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

fn start_logging(config: &Config) {
    let level: LevelFilter = config.log.level.parse().unwrap_or(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = match config.log.json {
        true => lines.json().flatten_event(true).try_init(),
        false => lines.with_ansi(false).try_init(),
    };
}
