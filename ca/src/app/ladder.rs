//! Root rotation by the clock: steps that other replicas made, acknowledgements to write down, the
//! schedule, alarms. Called by `upkeep` at every tick.
//!
//! Never: lets a failure here stop issuing.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::bundle::Rung;
use tokio::time::Instant;

use super::AppError;
use crate::authority::{Authority, Dress, Heard};
use crate::metrics::Metrics;
use crate::rotation::ladder::Move;
use crate::rotation::{IGNORED_WORDS, Ignored};

/// How often everybody's acknowledgements are counted while a rotation is under way: each count
/// reads them all.
const COUNT: Duration = Duration::from_secs(5);

pub(super) struct Ladder {
    dressed: Dress,
    counted: Option<Instant>,
    ignored: Option<Ignored>,
    alarms: (Option<u8>, Option<u8>),
}

impl Ladder {
    pub(super) fn new(dressed: Dress, metrics: &Metrics) -> Self {
        from_zero(metrics);
        Self { dressed, counted: None, ignored: None, alarms: (None, None) }
    }

    pub(super) fn has_moved(&self, authority: &Authority) -> bool {
        self.dressed != authority.dress()
    }

    pub(super) fn dressed(&mut self, dress: Dress) {
        self.dressed = dress;
    }

    pub(super) async fn watch(
        &mut self,
        authority: &Authority,
        metrics: &Metrics,
    ) -> Result<(), AppError> {
        authority.refresh_trust().await?;
        let ignored = authority.ignored();
        if let Some(found) = ignored.as_ref().filter(|_| ignored != self.ignored) {
            metrics.ladder.ignored.with_label_values(&[found.word]).inc();
        }
        self.ignored = ignored;
        self.sound(authority);
        authority.write_acks().await.map_err(crate::authority::AuthorityError::from)?;
        if self.counted.is_some_and(|counted| counted.elapsed() < COUNT) {
            return Ok(());
        }
        self.counted = Some(Instant::now());
        if let Some(made) = authority.rotate_by_schedule().await? {
            metrics.ladder.steps.with_label_values(&[made.word()]).inc();
        }
        let outstanding = match authority.step().step.rung {
            Rung::Settled => 0,
            Rung::Prepared | Rung::Activated => authority.ladder().await?.outstanding,
        };
        metrics.ladder.outstanding.set(i64::try_from(outstanding).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Says once for each threshold that a certificate is late with its successor.
    fn sound(&mut self, authority: &Authority) {
        let alarms = authority.alarms();
        let late = [
            ("issuing intermediate", self.alarms.0, alarms.0),
            ("active root", self.alarms.1, alarms.1),
        ];
        for (issuer, before, now) in late {
            if let Some(percent) = now.filter(|_| now != before) {
                tracing::error!(
                    target: "audit", outcome = "issuer_late", issuer, percent,
                    "less than {percent} % of the {issuer}'s life is left and it has no successor"
                );
            }
        }
        self.alarms = alarms;
    }
}

/// Every word is shown before it is counted for the first time: Prometheus sees no increase in a
/// series that begins at 1, and the first record that is not believed is the one to tell of.
fn from_zero(metrics: &Metrics) {
    for word in IGNORED_WORDS {
        metrics.ladder.ignored.with_label_values(&[word]);
    }
    // Only an operator aborts.
    for made in Move::ALL.into_iter().filter(|made| *made != Move::Abort) {
        metrics.ladder.steps.with_label_values(&[made.word()]);
    }
    for heard in Heard::ALL {
        metrics.ladder.acks.with_label_values(&[heard.word()]);
    }
}
