//! The `credentials` room of one sidecar, running, with its state directory and its clock.
//!
//! Never: a data plane, an expectation without a deadline.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use myelin_identity::issuance::JoinToken;
use myelin_sidecar::addr::{Clock, Endpoint};
use myelin_sidecar::credentials::{self, Config, Desk, Evidence, Snapshot, StartError, Store};
use myelin_sidecar::directory::Learned;
use myelin_sidecar::metrics::Metrics;
use myelin_sidecar::net::Dialer;
use tokio::task::JoinHandle;

use crate::ca::trust_domain;

/// Longer than any life and any wait of these tests together; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Sidecar {
    pub(crate) store: Arc<Store>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) learned: Arc<ArcSwap<Learned>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Seconds that its clock is ahead of the machine's.
    pub(crate) ahead: Arc<AtomicI64>,
    task: JoinHandle<Result<(), StartError>>,
}

impl Sidecar {
    pub(crate) fn start(ca: SocketAddr, state: &Path, token: Option<JoinToken>) -> Self {
        Self::start_with_clock(ca, state, token, 0)
    }

    pub(crate) fn start_with_clock(
        ca: SocketAddr,
        state: &Path,
        join_token: Option<JoinToken>,
        ahead: i64,
    ) -> Self {
        let config = Config {
            trust_domain: trust_domain(),
            id: None,
            cas: vec![Endpoint(ca)],
            state_dir: state.to_owned(),
            join_token,
            evidence: Evidence::None,
            pinned: None,
            lifetime: None,
            dialer: Dialer::new(None, Duration::from_secs(5)),
            workload: None,
        };
        let ahead = Arc::new(AtomicI64::new(ahead));
        let clock = clock(Arc::clone(&ahead));
        let learned = Arc::new(ArcSwap::<Learned>::default());
        let (store, desk) =
            (Store::new(Vec::new(), clock.clone(), None), Desk::new(Arc::clone(&learned)));
        let metrics = Arc::new(Metrics::new());
        let task = tokio::spawn(credentials::run(
            config,
            Arc::clone(&store),
            Arc::clone(&desk),
            Arc::clone(&metrics),
            clock,
            std::future::pending(),
        ));
        Self { store, desk, learned, metrics, ahead, task }
    }

    pub(crate) fn now(&self) -> u64 {
        clock(Arc::clone(&self.ahead)).unix()
    }

    /// Waits until a published snapshot is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut published = self.store.subscribe();
        let found = async {
            loop {
                published.borrow_and_update();
                if let Some(snapshot) = self.store.load().filter(|snapshot| wanted(snapshot)) {
                    return snapshot;
                }
                published.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("never published; see the log")
    }

    pub(crate) async fn first_svid(&self) -> Arc<Snapshot> {
        self.until(|_| true).await
    }

    /// Waits until another SVID than this one is in use.
    pub(crate) async fn renewed_after(&self, old: &Snapshot) -> Arc<Snapshot> {
        self.until(|snapshot| snapshot.svid.serial() != old.svid.serial()).await
    }

    /// Waits until `/metrics` has a line that begins so.
    pub(crate) async fn until_metric(&self, line: &str) {
        let shown = || self.metrics.render().lines().any(|seen| seen.starts_with(line));
        eventually(line, async || shown()).await;
    }

    /// What it ended with; it must end by itself.
    pub(crate) async fn ended(self) -> Result<(), StartError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it goes on").unwrap()
    }

    /// As a crash would: nothing is said to anybody.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

/// Asks again and again, for things that announce themselves to nobody.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[allow(clippy::disallowed_methods)]
fn clock(ahead: Arc<AtomicI64>) -> Clock {
    Clock::new(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        now.saturating_add_signed(ahead.load(Ordering::Relaxed))
    })
}
