//! What happens by the clock: renewal of the CA's own SVID and of the issuing
//! intermediate, expiry, the sweep.
//!
//! Never: lets a failure end it; it is said, counted into readiness, and tried again.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::endpoint::EndpointTls;
use super::ladder::Ladder;
use super::{AppError, issuers};
use crate::api::{Stopping, tls};
use crate::authority::{Authority, Dress, OwnSvid};
use crate::clock::UnixSeconds;
use crate::metrics::Metrics;
use crate::rotation::Renewal;

/// Expiry is announced to directory watchers within this.
const TICK: Duration = Duration::from_secs(1);
/// The journal's old entries may wait: they only cost disk.
const SWEEP: Duration = Duration::from_secs(600);

/// All is well, or why not.
type Said = Result<(), String>;

pub(super) struct Upkeep {
    authority: Arc<Authority>,
    metrics: Metrics,
    tls: Arc<ArcSwap<ServerConfig>>,
    /// Our bundle endpoint's, if there is one.
    endpoint: Option<EndpointTls>,
    renew_at: UnixSeconds,
    ready: watch::Sender<Said>,
    /// Whether the last heartbeat could be said.
    said: watch::Receiver<Said>,
    ladder: Ladder,
}

/// Half of what is left of an SVID that was just issued.
pub(super) fn renew_at(own: &OwnSvid, now: UnixSeconds) -> UnixSeconds {
    now + own.validity.not_after.saturating_sub(now) / 2
}

impl Upkeep {
    pub(super) fn new(
        authority: Arc<Authority>,
        metrics: Metrics,
        (tls, endpoint): (Arc<ArcSwap<ServerConfig>>, Option<EndpointTls>),
        (renew_at, dress): (UnixSeconds, Dress),
        (ready, said): (watch::Sender<Said>, watch::Receiver<Said>),
    ) -> Self {
        let ladder = Ladder::new(dress, &metrics);
        Self { authority, metrics, tls, endpoint, renew_at, ready, said, ladder }
    }

    pub(super) async fn run(mut self, mut stopping: Stopping) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        let (mut issuers, mut looked) = (issuers::Watch::default(), None::<Instant>);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // The TLS port must present the new roots, and know the new callers, at once.
                () = self.authority.trust_moved() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            self.authority.expire();
            let mut state = self.ladder.watch(&self.authority, &self.metrics).await;
            state = state.and(self.renew().await);
            state = state.and(self.hear().await);
            state = state.and_then(|()| self.said.borrow().clone().map_err(AppError::Refused));
            if looked.is_none_or(|at| at.elapsed() >= issuers::LOOK) {
                looked = Some(Instant::now());
                issuers.look(&self.authority, &self.metrics).await;
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                match self.authority.sweep().await {
                    Ok(gone) => tracing::debug!(gone, "swept the journal"),
                    Err(error) => tracing::error!(%error, "cannot sweep the journal"),
                }
            }
            self.tell(state.map_err(|error| error.to_string()));
        }
    }

    async fn renew(&mut self) -> Result<(), AppError> {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.look();
        }
        if self.authority.tick_rotation().await? == Renewal::Renewed {
            self.metrics.signer_renewals.inc();
            tracing::info!(
                not_after = self.authority.signer_not_after(),
                "renewed the issuing intermediate"
            );
        }
        let now = self.authority.clock().seconds();
        if now < self.renew_at && !self.ladder.has_moved(&self.authority) {
            return Ok(());
        }
        let own = self.authority.issue_own().await?;
        self.metrics.own_svid_not_after.set(own.validity.not_after as f64);
        if let Some(endpoint) = &self.endpoint {
            endpoint.renewed(&own)?;
        }
        let (due, dress) = (renew_at(&own, now), own.dress);
        let config =
            tls::server_config(own, self.authority.bundle(), self.authority.clock().clone())?;
        self.tls.store(Arc::new(config));
        self.renew_at = due;
        self.ladder.dressed(dress);
        Ok(())
    }

    /// What other processes have denied, and what a crash left half done.
    async fn hear(&self) -> Result<(), AppError> {
        self.authority.settle_denials().await?;
        self.authority.hear_denials().await?;
        Ok(())
    }

    /// Says a change of readiness once, not at every tick.
    fn tell(&self, state: Result<(), String>) {
        self.ready.send_if_modified(|ready| {
            let changed = *ready != state;
            if changed {
                match &state {
                    Ok(()) => tracing::info!("ready again"),
                    Err(why) => tracing::error!(%why, "not ready"),
                }
                *ready = state.clone();
            }
            changed
        });
    }
}
