//! The only room that knows all rooms: builds them from a configuration, ties them together, and
//! takes them down again. Called by `main`.
//!
//! Never: decides about a pod, parses a value.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::bundle::{self, Held};
use crate::ca_address;
use crate::cluster::{Cluster, ClusterError};
use crate::config::{self, CaAddress, Certificate, Config, ConfigError};
use crate::door::{self, DoorError};
use crate::metrics::Metrics;
use crate::ops::{self, Condition, Health};
use crate::webhook::{Files, Identity, Webhook};

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
    let (bundle, identity) = (Held::default(), Identity::default());
    let webhook_listener = door::bind("the webhook", config.webhook.listen)?;
    let ops_listener = door::bind("/live, /ready and /metrics", config.ops)?;
    let Certificate::Files { certificate, key } = config.webhook.certificate;
    let files = Files { certificate, key, identity: Arc::clone(&identity) };
    let source = bundle::Source {
        path: config.bundle_file,
        trust_domain: config.settings.trust_domain.clone(),
        held: Arc::clone(&bundle),
        metrics: Arc::clone(&metrics),
    };
    let ca = ca_address::Held::default();
    let service = match config.ca {
        CaAddress::Fixed(addresses) => {
            ca.store(Arc::new(addresses));
            None
        }
        CaAddress::Service(service) => Some(ca_address::Source {
            cluster: Cluster::connect(kubeconfig).await?,
            namespace: config.settings.namespace.clone(),
            service,
            held: Arc::clone(&ca),
        }),
    };
    let leaving = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readiness = Readiness {
        bundle: Arc::clone(&bundle),
        ca: Arc::clone(&ca),
        identity: Arc::clone(&identity),
        leaving: Arc::clone(&leaving),
    };
    let (settings, counted) = (config.settings, Arc::clone(&metrics));
    let webhook = Arc::new(Webhook { settings, bundle, ca, identity, metrics: counted });
    tracing::info!(webhook = %config.webhook.listen, ops = %config.ops, "listening");
    let ended = async {
        end.told().await;
        leaving.store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(?LINGER, "leaving");
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        never = source.follow() => match never {},
        never = follow_service(service) => match never {},
        never = files.follow() => match never {},
        never = webhook.serve(webhook_listener) => match never {},
        never = ops::serve(ops_listener, Arc::new(readiness), metrics) => match never {},
        () = ended => Ok(()),
    }
}

async fn follow_service(service: Option<ca_address::Source>) -> std::convert::Infallible {
    match service {
        Some(service) => service.follow().await,
        None => std::future::pending().await,
    }
}

struct Readiness {
    bundle: Held,
    ca: ca_address::Held,
    identity: Identity,
    leaving: Arc<std::sync::atomic::AtomicBool>,
}

impl Health for Readiness {
    fn conditions(&self) -> Vec<Condition> {
        let condition = |name, met: bool, why: &str| Condition {
            name,
            met,
            why: if met { String::new() } else { why.to_owned() },
        };
        let staying = !self.leaving.load(std::sync::atomic::Ordering::Relaxed);
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
            condition("listeners", staying, "leaving"),
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
