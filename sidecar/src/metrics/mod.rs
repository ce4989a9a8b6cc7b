//! Every number that the sidecar shows on `/metrics`: one registry, handles resolved when a
//! connection opens so that the relay only adds to an atomic. Called by every room that counts
//! and by `app`, which renders.
//!
//! Never: a label value chosen by an outsider without a cap, a label lookup per read or write, a
//! push to anywhere.

// SPDX-License-Identifier: Apache-2.0

mod labels;
mod policy;
mod process;
mod register;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use myelin_identity::id::SpiffeId;
use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::register::{counter, gauge, histogram_vec, int_counter_vec, int_gauge, int_gauge_vec};

pub use self::labels::{
    Direction, MAX_PEER_LABELS, MAX_PEER_SERIES, MeshUse, PeerLabel, Retired, Security,
    TrustUpdate, Verdict, WorkloadCall,
};
pub use self::policy::{Policies, PolicyUpdate};
pub use self::table::{Kind, Row};

/// Outcome of a connection whose guard was dropped without a word.
const ABANDONED: &str = "abandoned";

/// Handshakes take from 200 us (resumed, same machine) to the default timeout of 10 s.
const HANDSHAKE_BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Connections live from one short request to hours of a database session.
const CONNECTION_BUCKETS: &[f64] =
    &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0];

/// Workload bytes of one connection, as the workload sees them.
#[derive(Clone, Debug)]
pub struct ByteCounters {
    pub received: IntCounter,
    pub sent: IntCounter,
}

/// Handles of one direction, resolved once.
struct PerDirection {
    opened: IntCounter,
    open: IntGauge,
    duration: Histogram,
    handshake_duration: Histogram,
    plaintext_refused: IntCounter,
    /// Indexed by `Security as usize`, in the order of `Security::ALL`.
    bytes: [ByteCounters; Security::ALL.len()],
}

pub struct Metrics {
    registry: Registry,
    scrape: Mutex<process::Process>,
    /// Indexed by `Direction as usize`, in the order of `Direction::ALL`.
    directions: [PerDirection; Direction::ALL.len()],
    handshakes: IntCounterVec,
    closed: IntCounterVec,
    /// Indexed by `MeshUse as usize`.
    mesh_uses: [IntCounter; MeshUse::ALL.len()],
    mesh_idle: IntGauge,
    /// Indexed by `Retired as usize`.
    mesh_retired: [IntCounter; Retired::ALL.len()],
    /// Indexed by `Verdict as usize`.
    verdicts: [IntCounter; Verdict::ALL.len()],
    policies: Policies,
    renewals: IntCounterVec,
    /// Indexed by `TrustUpdate as usize`.
    trust_updates: [IntCounter; TrustUpdate::ALL.len()],
    workload_renewals: IntCounterVec,
    workload_not_after: IntGauge,
    workload_streams: IntGaugeVec,
    workload_answers: IntCounterVec,
    probes: IntCounterVec,
    not_before: IntGauge,
    not_after: IntGauge,
    bundle_generation: IntGauge,
    foreign_bundles: IntGauge,
    deny_epoch: IntGauge,
    deny_said_at: IntGauge,
    log_proofs: IntCounterVec,
    log_checkpoints: IntCounterVec,
    log_forks: IntGauge,
    log_roots: IntGaugeVec,
    ready: IntGauge,
    peers: labels::Peers,
}

/// Every family that `/metrics` can show.
pub fn table() -> &'static [Row] {
    table::ROWS
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let opened = int_counter_vec(&registry, table::OPENED);
        let open = int_gauge_vec(&registry, table::OPEN);
        let duration = histogram_vec(&registry, table::CONNECTION_DURATION, CONNECTION_BUCKETS);
        let handshakes = histogram_vec(&registry, table::HANDSHAKE_DURATION, HANDSHAKE_BUCKETS);
        let plaintext = int_counter_vec(&registry, table::PLAINTEXT_REFUSED);
        let bytes = int_counter_vec(&registry, table::BYTES);
        let directions = Direction::ALL.map(|direction| {
            let word = direction.word();
            let flow =
                |security: Security, flow| bytes.with_label_values(&[word, security.word(), flow]);
            PerDirection {
                opened: opened.with_label_values(&[word]),
                open: open.with_label_values(&[word]),
                duration: duration.with_label_values(&[word]),
                handshake_duration: handshakes.with_label_values(&[word]),
                plaintext_refused: plaintext.with_label_values(&[word]),
                bytes: Security::ALL.map(|security| ByteCounters {
                    received: flow(security, "received"),
                    sent: flow(security, "sent"),
                }),
            }
        });
        let uses = int_counter_vec(&registry, table::MESH_USES);
        let retired = int_counter_vec(&registry, table::MESH_RETIRED);
        let updates = int_counter_vec(&registry, table::TRUST_UPDATES);
        let verdicts = int_counter_vec(&registry, table::VERDICTS);
        int_gauge_vec(&registry, table::BUILD)
            .with_label_values(&[env!("CARGO_PKG_VERSION"), profile()])
            .set(1);
        Self {
            directions,
            handshakes: int_counter_vec(&registry, table::HANDSHAKES),
            closed: int_counter_vec(&registry, table::CLOSED),
            mesh_uses: MeshUse::ALL.map(|kind| uses.with_label_values(&[kind.word()])),
            mesh_idle: int_gauge(&registry, table::MESH_IDLE),
            mesh_retired: Retired::ALL.map(|why| retired.with_label_values(&[why.word()])),
            verdicts: Verdict::ALL.map(|verdict| {
                verdicts.with_label_values(&[verdict.direction().word(), verdict.word()])
            }),
            policies: Policies::register(&registry),
            renewals: int_counter_vec(&registry, table::RENEWALS),
            trust_updates: TrustUpdate::ALL.map(|what| updates.with_label_values(&[what.word()])),
            workload_renewals: int_counter_vec(&registry, table::WORKLOAD_RENEWALS),
            workload_not_after: int_gauge(&registry, table::WORKLOAD_NOT_AFTER),
            workload_streams: int_gauge_vec(&registry, table::WORKLOAD_STREAMS),
            workload_answers: int_counter_vec(&registry, table::WORKLOAD_ANSWERS),
            probes: int_counter_vec(&registry, table::PROBES),
            not_before: int_gauge(&registry, table::NOT_BEFORE),
            not_after: int_gauge(&registry, table::NOT_AFTER),
            bundle_generation: int_gauge(&registry, table::BUNDLE_GENERATION),
            foreign_bundles: int_gauge(&registry, table::FOREIGN_BUNDLES),
            deny_epoch: int_gauge(&registry, table::DENY_EPOCH),
            deny_said_at: int_gauge(&registry, table::DENY_SAID_AT),
            log_proofs: int_counter_vec(&registry, table::LOG_PROOFS),
            log_checkpoints: int_counter_vec(&registry, table::LOG_CHECKPOINTS),
            log_forks: int_gauge(&registry, table::LOG_FORKS),
            log_roots: int_gauge_vec(&registry, table::LOG_ROOTS),
            ready: int_gauge(&registry, table::READY),
            peers: labels::Peers::default(),
            scrape: Mutex::new(process::Process::register(&registry)),
            registry,
        }
    }

    /// One TLS handshake. `group` and `cipher` are `none` when it failed before they were agreed.
    pub fn handshake(
        &self,
        direction: Direction,
        outcome: &'static str,
        group: &'static str,
        cipher: &'static str,
        resumed: bool,
        seconds: f64,
    ) {
        let resumed = if resumed { "true" } else { "false" };
        self.handshakes
            .with_label_values(&[direction.word(), outcome, group, cipher, resumed])
            .inc();
        self.of(direction).handshake_duration.observe(seconds);
    }

    /// Counts a connection as opened and open until the guard is closed or dropped.
    pub fn connection(self: &Arc<Self>, direction: Direction) -> OpenConnection {
        let handles = self.of(direction);
        handles.opened.inc();
        handles.open.inc();
        OpenConnection { metrics: Arc::clone(self), direction, closed: false }
    }

    pub fn bytes(&self, direction: Direction, security: Security) -> ByteCounters {
        self.of(direction).bytes[security as usize].clone()
    }

    pub fn peer_label(&self, peer: &SpiffeId) -> PeerLabel {
        self.peers.label(peer)
    }

    /// A use was opened on a mesh connection.
    pub fn mesh_use(&self, kind: MeshUse) {
        self.mesh_uses[kind as usize].inc();
    }

    /// One worker's idle mesh connections were so many, and are so many now.
    pub fn mesh_idle(&self, before: usize, now: usize) {
        let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
        if before != now {
            self.mesh_idle.add(signed(now) - signed(before));
        }
    }

    pub fn mesh_retired(&self, why: Retired) {
        self.mesh_retired[why as usize].inc();
    }

    pub fn verdict(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].inc();
    }

    /// What is counted about policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    pub fn plaintext_refused(&self, direction: Direction) {
        self.of(direction).plaintext_refused.inc();
    }

    /// Validity of the SVID in use, in seconds since the Unix epoch.
    pub fn svid(&self, not_before: u64, not_after: u64) {
        self.not_before.set(signed(not_before));
        self.not_after.set(signed(not_after));
    }

    pub fn renewal(&self, outcome: &'static str) {
        self.renewals.with_label_values(&[outcome]).inc();
    }

    /// An attempt to get the workload's own SVID.
    pub fn workload_renewal(&self, outcome: &'static str) {
        self.workload_renewals.with_label_values(&[outcome]).inc();
    }

    pub fn workload_svid(&self, not_after: u64) {
        self.workload_not_after.set(signed(not_after));
    }

    /// So many streams more are open on the workload API's socket.
    pub fn workload_streams(&self, call: WorkloadCall, more: i64) {
        self.workload_streams.with_label_values(&[call.word()]).add(more);
    }

    pub fn workload_answer(&self, call: WorkloadCall, outcome: &'static str) {
        self.workload_answers.with_label_values(&[call.word(), outcome]).inc();
    }

    /// A probe of the workload was run.
    pub fn probe(&self, kind: &'static str, outcome: &'static str) {
        self.probes.with_label_values(&[kind, outcome]).inc();
    }

    /// A trust bundle or deny list that the CA sent.
    pub fn trust_update(&self, outcome: TrustUpdate) {
        self.trust_updates[outcome as usize].inc();
    }

    pub fn bundle_generation(&self, generation: u64) {
        self.bundle_generation.set(signed(generation));
    }

    pub fn foreign_bundles(&self, count: usize) {
        self.foreign_bundles.set(signed(count as u64));
    }

    pub fn deny_list_epoch(&self, epoch: u64) {
        self.deny_epoch.set(signed(epoch));
    }

    /// When the CA last confirmed the deny list, in seconds since the Unix epoch.
    pub fn deny_list_said_at(&self, said_at: u64) {
        self.deny_said_at.set(signed(said_at));
    }

    /// A peer's log proof was judged.
    pub fn log_proof(&self, direction: Direction, outcome: &'static str) {
        self.log_proofs.with_label_values(&[direction.word(), outcome]).inc();
    }

    /// A checkpoint was compared with others of its log, or could not be.
    pub fn log_checkpoint(&self, outcome: &'static str) {
        self.log_checkpoints.with_label_values(&[outcome]).inc();
    }

    pub fn log_forks(&self, forks: usize) {
        self.log_forks.set(i64::try_from(forks).unwrap_or(i64::MAX));
    }

    /// Roots of the bundle in use that name a log, and those that do not.
    pub fn log_roots(&self, logged: usize, others: usize) {
        for (word, roots) in [("true", logged), ("false", others)] {
            let roots = i64::try_from(roots).unwrap_or(i64::MAX);
            self.log_roots.with_label_values(&[word]).set(roots);
        }
    }

    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Connections open now, as the gauge says.
    pub fn open_connections(&self, direction: Direction) -> i64 {
        self.of(direction).open.get()
    }

    /// The whole registry in the Prometheus text format.
    pub fn render(&self) -> String {
        let process = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        process.refresh();
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("encoding to memory fails only for an empty family, and none is registered")
    }

    fn of(&self, direction: Direction) -> &PerDirection {
        &self.directions[direction as usize]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One connection in the `open` gauge. Dropped without `closed`, it counts as abandoned.
pub struct OpenConnection {
    metrics: Arc<Metrics>,
    direction: Direction,
    closed: bool,
}

impl OpenConnection {
    pub fn closed(
        mut self,
        outcome: &'static str,
        security: Security,
        peer: &PeerLabel,
        seconds: f64,
    ) {
        self.closed = true;
        let metrics = &self.metrics;
        let label = metrics.peers.admit(self.direction, outcome, security, peer);
        metrics
            .closed
            .with_label_values(&[self.direction.word(), outcome, security.word(), label])
            .inc();
        metrics.of(self.direction).duration.observe(seconds);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.of(self.direction).open.dec();
        if !self.closed {
            let labels =
                [self.direction.word(), ABANDONED, Security::Unknown.word(), PeerLabel::NONE];
            self.metrics.closed.with_label_values(&labels).inc();
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}
