//! The eye on a CA whose root is elsewhere: how long what is here will do, as gauges, and in the log
//! when less of it is left than should be.
//!
//! Never: does anything about it; people carry intermediates.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use crate::api::admin;
use crate::authority::Authority;
use crate::metrics::Metrics;
use crate::operator::{IssuerAnswer, IssuerAsk, IssuerStatus, RootKey};

/// Alarms are about months; an import shows within this.
pub(super) const LOOK: Duration = Duration::from_secs(30);

/// What was said last, so that each alarm is said once.
#[derive(Default)]
pub(super) struct Watch {
    said: Option<u8>,
}

impl Watch {
    pub(super) async fn look(&mut self, authority: &Authority, metrics: &Metrics) {
        let now = authority.clock().seconds();
        match admin::issuers(authority).answer(now, IssuerAsk::Status).await {
            Ok(IssuerAnswer::Status(status)) => self.say(&status, metrics),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot look at the issuers"),
        }
    }

    fn say(&mut self, status: &IssuerStatus, metrics: &Metrics) {
        let until = status.covered_until.unwrap_or_default();
        let gauges = &metrics.issuers;
        gauges.root_key_held.set((status.root_key == RootKey::Here).into());
        gauges.successors.set(i64::try_from(status.successors.len()).unwrap_or(i64::MAX));
        gauges.covered_until.set(until as f64);
        gauges.alarm.set(status.alarm.unwrap_or_default().into());
        if self.said == status.alarm {
            return;
        }
        self.said = status.alarm;
        match status.alarm {
            Some(percent) => tracing::error!(
                target: "audit", outcome = "issuer_alarm", percent, until,
                "at most {percent} % of an intermediate's life is left and no successor waits: run myelin-ca issuer request, have the root sign it, then myelin-ca issuer import"
            ),
            None => tracing::info!(until, "enough intermediates are here again"),
        }
    }
}
