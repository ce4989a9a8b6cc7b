//! Keeps the set of foreign bundles true while the CA serves: tells each change of the store within
//! a moment, and fetches what is due. `app` runs one.
//!
//! Never: waits for an endpoint before it tells of a removal; ends because something failed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::ForeignBundles;
use myelin_identity::id::TrustDomain;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::refresh::{RefreshError, refresh};
use super::{FederationError, PassedOver, Roll, View, schedule};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// How often the roll is looked at, which is one small read: a removal reaches sidecars within two
/// seconds, and this is the longest part of them.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often all entries are read to see what is due: half of the shortest wait between fetches.
const PLAN_EVERY: Duration = Duration::from_secs(4);
/// Fetches at once: a slow endpoint holds up three others at most for a deadline.
const MAX_FETCHES: usize = 4;

/// The foreign bundles of one CA process.
pub struct Keeper {
    roll: Roll,
    clock: Clock,
    metrics: Metrics,
    told: watch::Sender<Arc<ForeignBundles>>,
    /// This process's share of the spread, 0 to 1.
    share: f64,
    running: HashSet<TrustDomain>,
    known: HashSet<TrustDomain>,
    /// The revision of the roll that was last read.
    place: Option<u64>,
    /// What was last passed over, so that it is said once.
    passed_over: Vec<PassedOver>,
}

impl Keeper {
    /// Reads the set, so that the very first watcher is told of it.
    pub async fn start(
        roll: Roll,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, FederationError> {
        let view = roll.view().await?;
        let set = view.set()?;
        metrics.federation.epoch.set(i64::try_from(set.epoch()).unwrap_or(i64::MAX));
        let byte = crate::random::bytes::<1>().map_or(0, |[byte]| byte);
        let mut keeper = Self {
            roll,
            clock,
            metrics,
            told: watch::Sender::new(Arc::new(set)),
            share: f64::from(byte) / f64::from(u8::MAX),
            running: HashSet::new(),
            known: HashSet::new(),
            place: None,
            passed_over: Vec::new(),
        };
        keeper.pass_over(&view);
        Ok(keeper)
    }

    /// The set now, and each later one.
    pub fn told(&self) -> watch::Receiver<Arc<ForeignBundles>> {
        self.told.subscribe()
    }

    /// Runs until `stopping` says so.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fetches = JoinSet::new();
        let mut planned: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(ended) = fetches.join_next() => {
                    // A task that panicked is fetched again after a restart; nothing was written.
                    if let Ok(domain) = ended {
                        self.running.remove(&domain);
                        planned = None;
                    }
                }
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            let place = self.roll.place().await;
            let moved = place.is_ok_and(|place| place != self.place);
            if moved || planned.is_none_or(|at| at.elapsed() >= PLAN_EVERY) {
                planned = Some(Instant::now());
                if let Err(error) = self.look(&mut fetches).await {
                    tracing::error!(%error, "cannot read what is federated; what is held stays");
                }
            }
        }
    }

    /// Reads all of it: tells the set if its epoch has moved, and fetches what is due.
    async fn look(&mut self, fetches: &mut JoinSet<TrustDomain>) -> Result<(), FederationError> {
        let view = self.roll.view().await?;
        self.pass_over(&view);
        let held = self.told.borrow().epoch();
        let set = view.set()?;
        if set.epoch() != held {
            self.metrics.federation.epoch.set(i64::try_from(set.epoch()).unwrap_or(i64::MAX));
            self.told.send_replace(Arc::new(set));
        }
        self.plan(&view, fetches);
        self.place = view.place;
        self.roll.mend(&view).await
    }

    /// Says what is not believed, each once.
    fn pass_over(&mut self, view: &View) {
        for it in view.passed_over.iter().filter(|it| !self.passed_over.contains(it)) {
            tracing::error!(
                target: "audit", outcome = "federation_passed_over", reason = it.word,
                record = it.name(),
                "a federation record of the store is not believed: {}; somebody or something has changed the store",
                it.why
            );
        }
        self.metrics.federation.passed_over(view.passed_over.iter().map(|it| it.word));
        self.passed_over.clone_from(&view.passed_over);
    }

    /// Starts what is due, as far as there is room.
    fn plan(&mut self, view: &View, fetches: &mut JoinSet<TrustDomain>) {
        let now = self.clock.seconds();
        let names: HashSet<_> = view.members.iter().map(|(domain, _)| domain.clone()).collect();
        for gone in self.known.difference(&names) {
            self.metrics.federation.forget(gone.as_str());
        }
        self.known = names;
        for (domain, entry) in &view.members {
            let record = &entry.record;
            let fetched = record.bundle.as_ref().map_or(0, |held| held.fetched);
            self.metrics.federation.fetched(domain.as_str(), fetched);
            let has_room = self.running.len() < MAX_FETCHES && !self.running.contains(domain);
            if has_room && schedule::is_due(record, now, self.share) {
                self.running.insert(domain.clone());
                let (roll, clock) = (self.roll.clone(), self.clock.clone());
                let (domain, metrics) = (domain.clone(), self.metrics.clone());
                fetches.spawn(async move {
                    attempt(&roll, &domain, &clock, &metrics).await;
                    domain
                });
            }
        }
    }
}

async fn attempt(roll: &Roll, domain: &TrustDomain, clock: &Clock, metrics: &Metrics) {
    let word = match refresh(roll, domain, clock).await {
        Ok(outcome) => {
            tracing::debug!(%domain, outcome = outcome.word(), "foreign bundle refreshed");
            outcome.word()
        }
        // Removed, or written over by a stranger, between plan and fetch.
        Err(RefreshError::Federation(
            FederationError::Unknown(_) | FederationError::PassedOver { .. },
        )) => return,
        Err(error) => {
            let outcome = error.word();
            tracing::warn!(%domain, outcome, %error, "foreign bundle not refreshed; the last stays");
            outcome
        }
    };
    metrics.federation.refreshed(domain.as_str(), word);
}
