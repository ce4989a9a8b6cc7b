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
use super::{FederationError, entry, epoch, read_set, schedule};
use crate::clock::Clock;
use crate::journal::Journal;
use crate::metrics::Metrics;

/// How often the epoch is looked at, which is one small read: a removal reaches sidecars within two
/// seconds, and this is the longest part of them.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often all entries are read to see what is due: half of the shortest wait between fetches.
const PLAN_EVERY: Duration = Duration::from_secs(4);
/// Fetches at once: a slow endpoint holds up three others at most for a deadline.
const MAX_FETCHES: usize = 4;

/// The foreign bundles of one CA process.
pub struct Keeper {
    journal: Journal,
    clock: Clock,
    metrics: Metrics,
    told: watch::Sender<Arc<ForeignBundles>>,
    /// This process's share of the spread, 0 to 1.
    share: f64,
    running: HashSet<TrustDomain>,
    known: HashSet<TrustDomain>,
}

impl Keeper {
    /// Reads the set, so that the very first watcher is told of it.
    pub async fn start(
        journal: Journal,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, FederationError> {
        let set = read_set(&journal).await?;
        metrics.federation.epoch.set(i64::try_from(set.epoch()).unwrap_or(i64::MAX));
        let byte = crate::random::bytes::<1>().map_or(0, |[byte]| byte);
        Ok(Self {
            journal,
            clock,
            metrics,
            told: watch::Sender::new(Arc::new(set)),
            share: f64::from(byte) / f64::from(u8::MAX),
            running: HashSet::new(),
            known: HashSet::new(),
        })
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
            let looked = self.look().await;
            if matches!(looked, Ok(true)) || planned.is_none_or(|at| at.elapsed() >= PLAN_EVERY) {
                planned = Some(Instant::now());
                if let Err(error) = self.plan(&mut fetches).await {
                    tracing::error!(%error, "cannot read what is federated; what is held stays");
                }
            }
        }
    }

    /// Tells the set if its epoch has moved; says whether it did.
    async fn look(&self) -> Result<bool, FederationError> {
        let held = self.told.borrow().epoch();
        if epoch(&self.journal).await? == held {
            return Ok(false);
        }
        let set = read_set(&self.journal).await.inspect_err(|error| {
            tracing::error!(%error, "cannot read the foreign bundles; those held stay");
        })?;
        self.metrics.federation.epoch.set(i64::try_from(set.epoch()).unwrap_or(i64::MAX));
        self.told.send_replace(Arc::new(set));
        Ok(true)
    }

    /// Starts what is due, as far as there is room.
    async fn plan(&mut self, fetches: &mut JoinSet<TrustDomain>) -> Result<(), FederationError> {
        let now = self.clock.seconds();
        let all = entry::list(&self.journal).await?;
        let names: HashSet<TrustDomain> = all.iter().map(|(domain, _)| domain.clone()).collect();
        for gone in self.known.difference(&names) {
            self.metrics.federation.forget(gone.as_str());
        }
        self.known = names;
        for (domain, record) in all {
            let fetched = record.bundle.as_ref().map_or(0, |held| held.fetched);
            self.metrics.federation.fetched(domain.as_str(), fetched);
            let has_room = self.running.len() < MAX_FETCHES && !self.running.contains(&domain);
            if has_room && schedule::is_due(&record, now, self.share) {
                self.running.insert(domain.clone());
                let (journal, clock) = (self.journal.clone(), self.clock.clone());
                let metrics = self.metrics.clone();
                fetches.spawn(async move {
                    attempt(&journal, &domain, &clock, &metrics).await;
                    domain
                });
            }
        }
        Ok(())
    }
}

async fn attempt(journal: &Journal, domain: &TrustDomain, clock: &Clock, metrics: &Metrics) {
    let word = match refresh(journal, domain, clock).await {
        Ok(outcome) => {
            tracing::debug!(%domain, outcome = outcome.word(), "foreign bundle refreshed");
            outcome.word()
        }
        // Removed between plan and fetch.
        Err(RefreshError::Federation(FederationError::Unknown(_))) => return,
        Err(error) => {
            let outcome = error.word();
            tracing::warn!(%domain, outcome, %error, "foreign bundle not refreshed; the last stays");
            outcome
        }
    };
    metrics.federation.refreshed(domain.as_str(), word);
}
