//! From the file's sections to what each room wants to be built with. Called by `app::run` and at
//! each reload.
//!
//! Never: a default of its own; the token in a message.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::issuance::JoinToken;
use tokio::time::Instant;

use super::shared::Shared;
use crate::addr::Clock;
use crate::auditor;
use crate::config::Config;
use crate::controller::{self, Line};
use crate::credentials::{self, Store, WorkloadIdentity};
use crate::directory::{Protocol, Services};
use crate::inbound;
use crate::intercept::{self, Plan};
use crate::metrics::Metrics;
use crate::net::Dialer;
use crate::outbound;
use crate::policies::{self, PolicyDesk};
use crate::probes::{ProbeError, ProbePort};
use crate::proofs::Judge;
use crate::services;
use crate::unix_socket::SocketError;
use crate::wire::Budget;
use crate::workload_api::WorkloadApi;

/// How long a recycled mesh connection may wait for its next use: long enough for a client's next
/// request, short enough that idle peers cost nothing.
const KEEP: Duration = Duration::from_secs(60);

/// How long the dialer keeps one: half of `KEEP`, so that it is the dialer who ends an idle one and
/// no use meets an acceptor that has just lost its patience.
const DIALERS_KEEP: Duration = Duration::from_secs(30);

/// Payload of one mesh connection before a fresh handshake replaces it: 64 GiB, far below the
/// limits of AES-GCM (RFC 8446, section 5.5) even without the key update between uses.
const MAX_BYTES: NonZeroU64 = NonZeroU64::new(64 << 30).expect("not zero");

/// A token file is one line; more is not one.
const MAX_TOKEN_BYTES: u64 = 4 * 1024;

/// Sixteen roots, the most that a bundle holds, take less than 1 KiB each.
const MAX_BUNDLE_BYTES: u64 = 64 * 1024;

/// The join token's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "cannot read the join token {path}: {source}; write the output of \
         `myelin-ca token create` there, readable by this user"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "the pinned bundle {path} cannot be used: {why}; write the CA's /bundle.pem there, or \
         remove ca.bundle_file"
    )]
    Bundle { path: PathBuf, why: String },
    #[error("{path} holds no join token: {why}; make a new one with `myelin-ca token create`")]
    Malformed { path: PathBuf, why: String },
}

/// The pinned bundle, which must be there if it is named.
fn bundle(config: &Config) -> Result<Option<TrustBundle>, TokenError> {
    let Some(path) = &config.ca.bundle_file else { return Ok(None) };
    let unusable = |why: String| TokenError::Bundle { path: path.clone(), why };
    let text = bounded(path, MAX_BUNDLE_BYTES).map_err(|error| unusable(error.to_string()))?;
    let text = text.ok_or_else(|| unusable(format!("it exceeds {MAX_BUNDLE_BYTES} bytes")))?;
    // PEM says no generation; the CA's first answer does.
    let bundle = TrustBundle::from_pem(config.trust_domain.clone(), 0, &text);
    bundle.map(Some).map_err(|why| unusable(why.to_string()))
}

/// A text file, or `None` if it is longer than it may be.
fn bounded(path: &Path, most: u64) -> io::Result<Option<String>> {
    if std::fs::metadata(path)?.len() > most {
        return Ok(None);
    }
    std::fs::read_to_string(path).map(Some)
}

/// The port of the workload's probes, where the file has any.
pub(super) fn probes(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<ProbePort>, ProbeError> {
    if config.probes.is_empty() {
        return Ok(None);
    }
    let (address, probes) = (config.listen.probes, config.probes.clone());
    ProbePort::bind(address, probes, Arc::clone(metrics)).map(Some)
}

/// The identity room's part. A token file that is gone is no error: it is needed only once.
pub(super) fn credentials(
    config: &Config,
    dialer: Dialer,
    workload: Option<Arc<WorkloadIdentity>>,
) -> Result<credentials::Config, TokenError> {
    Ok(credentials::Config {
        trust_domain: config.trust_domain.clone(),
        id: config.id.clone(),
        cas: config.ca.addresses.clone(),
        state_dir: config.state_dir.clone(),
        join_token: token(config)?,
        evidence: config.ca.evidence.clone(),
        pinned: bundle(config)?,
        lifetime: config.ca.lifetime,
        dialer,
        workload,
    })
}

/// The workload's own identity and the socket that hands it out, where that is configured.
pub(super) fn workload_api(
    config: &Config,
    shared: &Shared,
) -> Result<(Option<Arc<WorkloadIdentity>>, Option<WorkloadApi>), SocketError> {
    let Some(config) = config.workload_api.clone() else { return Ok((None, None)) };
    let identity = WorkloadIdentity::new();
    let api = WorkloadApi::bind(
        config,
        Arc::clone(&shared.store),
        Arc::clone(&identity),
        Arc::clone(&shared.metrics),
        shared.clock.clone(),
    )?;
    Ok((Some(identity), Some(api)))
}

/// An empty table, whose choices are like nobody else's.
pub(super) fn services() -> Services {
    let mut seed = [0; 8];
    // Without randomness sidecars choose alike, and balance worse; nothing more.
    let _ = aws_lc_rs::rand::fill(&mut seed);
    Services::new(Instant::now(), u64::from_ne_bytes(seed))
}

/// Who keeps that table, where controllers are configured.
pub(super) fn service_watch(config: &Config, shared: &Shared) -> Option<services::Watch> {
    let line = line(config.services.as_ref()?, shared);
    Some(services::Watch { line, desk: Arc::clone(&shared.service_desk) })
}

/// What is in force of the file and of controllers, where these are configured.
pub(super) fn policy_desk(
    config: &Config,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Arc<PolicyDesk> {
    let is_on = config.policies.is_some();
    PolicyDesk::new(config.policy.clone(), is_on, Arc::clone(metrics), clock.clone())
}

pub(super) fn policy_watch(config: &Config, shared: &Shared) -> Option<policies::Watch> {
    let line = line(config.policies.as_ref()?, shared);
    let (desk, metrics) = (Arc::clone(&shared.policy_desk), Arc::clone(&shared.metrics));
    Some(policies::Watch { line, desk, metrics })
}

fn line(config: &controller::Config, shared: &Shared) -> Line {
    Line {
        config: config.clone(),
        store: Arc::clone(&shared.store),
        dialer: shared.dialer,
        clock: shared.clock.clone(),
    }
}

pub(super) fn inbound(config: &Config) -> inbound::Config {
    let limits = &config.limits;
    inbound::Config {
        handshake: limits.handshake_timeout,
        detect: limits.detect_timeout,
        idle: limits.idle_timeout,
        keep: KEEP.min(limits.idle_timeout),
        use_after_expiry: limits.max_use_after_expiry,
        max_age: limits.max_connection_age,
        budget: budget(config),
    }
}

fn budget(config: &Config) -> Budget {
    let max_uses = NonZeroU64::new(config.limits.max_uses.into()).unwrap_or(NonZeroU64::MIN);
    Budget { max_uses, max_bytes: MAX_BYTES }
}

pub(super) fn outbound(config: &Config) -> outbound::Config {
    let limits = &config.limits;
    outbound::Config {
        handshake: limits.handshake_timeout,
        // The acceptor dials its workload within its own limit, presumably the same as ours.
        answer: limits.connect_timeout + limits.handshake_timeout,
        idle: limits.idle_timeout,
        use_after_expiry: limits.max_use_after_expiry,
        keep: DIALERS_KEEP.min(limits.idle_timeout / 2),
        max_age: limits.max_connection_age,
        budget: budget(config),
    }
}

/// Checkpoints and evidence lie beside the host key, in a directory of their own.
const AUDITORS_DIRECTORY: &str = "logs";

pub(super) fn auditor(config: &Config, dialer: Dialer, clock: Clock) -> auditor::Config {
    auditor::Config {
        directory: config.state_dir.join(AUDITORS_DIRECTORY),
        servers: config.proofs.servers.clone(),
        dialer,
        clock,
    }
}

/// The mark that exempts our sockets; `None` where the rules go by user alone.
pub(super) fn mark(config: &Config) -> Option<u32> {
    Some(config.intercept.mark).filter(|mark| *mark != 0)
}

/// The rules that must be there before we are ready.
pub(super) fn rules(config: &Config) -> Result<Option<Plan>, intercept::InterceptError> {
    if !config.intercept.verify {
        return Ok(None);
    }
    Plan::new(config.interception()).map(Some)
}

/// Every ALPN that configuration declares for peers without `myelin/1`, in both directions.
pub(super) fn alpns(config: &Config) -> Vec<Vec<u8>> {
    let inbound = config.policy.ports.values().filter_map(|port| port.plain_mtls.as_ref());
    let directory = &config.directory;
    let outbound = directory.services.iter().map(|service| &service.protocol);
    let outbound = outbound.chain(directory.peers.iter().map(|peer| &peer.protocol));
    let outbound = outbound.filter_map(|protocol| match protocol {
        Protocol::PlainMtls { alpn } => alpn.clone(),
        Protocol::Myelin1 => None,
    });
    let mut alpns: Vec<_> =
        inbound.filter_map(|plain| plain.alpn.clone()).chain(outbound).collect();
    // The controller's is ours to declare.
    let controllers = config.services.iter().chain(&config.policies);
    alpns.extend(controllers.map(|_| controller::ALPN.to_vec()));
    alpns.sort();
    alpns.dedup();
    alpns
}

pub(super) fn store(config: &Config, clock: &Clock, judge: &Arc<Judge>) -> Arc<Store> {
    let store = Store::new(alpns(config), clock.clone(), Some(Arc::clone(judge)));
    store
        .federate_with(config.federates_with.clone(), config.federates_unlogged.clone())
        .expect("before the first SVID nothing is built that could be refused");
    store
}

pub(super) fn workers(config: &Config) -> usize {
    let one_each = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.listen.workers.unwrap_or_else(one_each).get()
}

fn token(config: &Config) -> Result<Option<JoinToken>, TokenError> {
    let Some(path) = &config.ca.join_token_file else { return Ok(None) };
    let malformed = |why: String| TokenError::Malformed { path: path.clone(), why };
    let text = match bounded(path, MAX_TOKEN_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TokenError::Unreadable { path: path.clone(), source }),
        Ok(Some(text)) => text,
        Ok(None) => return Err(malformed("it is longer than one line".to_owned())),
    };
    text.trim()
        .parse()
        .map(Some)
        .map_err(|why: <JoinToken as std::str::FromStr>::Err| malformed(why.to_string()))
}
