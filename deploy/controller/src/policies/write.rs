//! Brings the verdicts into the status of the policies, one after the other. Called by the room's door.
//!
//! Never: writes what is there already; writes over what a controller of another mind has written about
//! the same spec, but once; tries again what the API server will never take; ends.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use myelin_sidecar::addr::Clock;

use super::hub::Policies;
use super::objects::{Key, Kind};
use super::status::{Condition, Verdict};
use crate::cluster::{Cluster, ClusterError};
use crate::metrics::Metrics;

/// Tries of one write at a time: each conflict means that somebody else has written.
const MAX_TRIES: usize = 4;

/// After a round in which a write failed; the others of that round were written.
const AGAIN: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    pub(super) cluster: Cluster,
    pub(super) policies: Arc<Policies>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// What we have said last: another replica that is of another mind is not argued with.
    pub(super) said: HashMap<(Kind, Key), Verdict>,
}

impl Writer {
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let mut failed = 0;
            for (kind, key) in self.policies.to_judge().await {
                if let Err(why) = self.judge(kind, &key).await {
                    // The first of a round stands for all.
                    if failed == 0 {
                        tracing::warn!("the status of a {} is not written: {why}", kind.word());
                    }
                    failed += 1;
                    self.metrics.policy_status("failed");
                    if !is_for_good(&why) {
                        self.policies.judge_again(kind, key);
                    }
                }
            }
            if failed > 0 {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn judge(&mut self, kind: Kind, key: &Key) -> Result<(), ClusterError> {
        let Some((verdict, seen)) = self.policies.verdict(kind, key) else {
            self.said.remove(&(kind, key.clone()));
            return Ok(());
        };
        if self.has_to_say(kind, key, &verdict, seen.as_ref()) {
            if self.say(kind, key, &verdict).await? {
                self.metrics.policy_status("written");
            }
            self.said.insert((kind, key.clone()), verdict);
        }
        Ok(())
    }

    fn has_to_say(
        &self,
        kind: Kind,
        key: &Key,
        verdict: &Verdict,
        seen: Option<&Condition>,
    ) -> bool {
        if verdict.is_said_by(seen) {
            return false;
        }
        let said_before = self.said.get(&(kind, key.clone())) == Some(verdict);
        let is_others = seen.is_some_and(|seen| seen.is_of(verdict));
        !said_before || !is_others
    }

    /// `false`: there was nothing to write.
    async fn say(&self, kind: Kind, key: &Key, verdict: &Verdict) -> Result<bool, ClusterError> {
        let path = kind.path_of(key);
        let mut tries = 1;
        loop {
            let Some(object) = self.cluster.read(&path).await? else { return Ok(false) };
            let Some(object) = verdict.written_into(&object, self.clock.unix()) else {
                return Ok(false);
            };
            match self.cluster.replace(&format!("{path}/status"), &object).await {
                Ok(_) => return Ok(true),
                Err(ClusterError::Conflict { .. }) if tries < MAX_TRIES => tries += 1,
                Err(ClusterError::Refused { code: 404, .. }) => return Ok(false),
                Err(why) => return Err(why),
            }
        }
    }
}

/// The API server does not take this object's status, however often it is asked: the object has to change
/// first. Rights (401, 403) are given later, and 408 and 429 ask for patience.
fn is_for_good(why: &ClusterError) -> bool {
    match why {
        ClusterError::Refused { code, .. } => {
            (400..500).contains(code) && ![401, 403, 408, 429].contains(code)
        }
        _ => false,
    }
}
