//! Are we live, are we ready, and if not, why? Asked by the ops port, answered from what is there
//! this moment. Made by `app`.
//!
//! Never: says ready while a handshake would be refused, or while the rules are missing.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use super::shared::Shared;
use crate::admin::{Condition, Health};
use crate::intercept::{self, Plan, State};
use crate::proofs::Duty;

pub(super) struct Readiness {
    shared: Arc<Shared>,
    /// The rules that must be there; `None` if configuration says not to look.
    rules: Option<Plan>,
}

impl Readiness {
    pub(super) fn new(shared: &Arc<Shared>, rules: Option<Plan>) -> Self {
        Self { shared: Arc::clone(shared), rules }
    }

    fn identity(&self) -> Condition {
        let usable = self.shared.store.usable(self.shared.clock.unix());
        let why = usable.as_ref().err().map(|none| none.word().to_owned()).unwrap_or_default();
        Condition { name: "identity", met: usable.is_ok(), why }
    }

    fn rules(&self) -> Condition {
        let (met, why) = match self.rules.as_ref().map(intercept::state) {
            None => (true, "not looked at (intercept.verify = false)".to_owned()),
            Some(Ok(State::Applied)) => (true, String::new()),
            Some(Ok(State::Absent)) => {
                (false, "absent: run `myelin-sidecar intercept apply`".to_owned())
            }
            Some(Ok(State::Different(difference))) => (false, format!("different: {difference}")),
            Some(Err(error)) => (false, error.to_string()),
        };
        Condition { name: "rules", met, why }
    }

    /// Unmet while our own SVID stands on a log that has shown two histories: no peer takes us then.
    /// Anybody else's fork is that one's end and an alarm, but we serve on. Met without a log as
    /// well, where no root demands one, but never in silence.
    fn log(&self) -> Condition {
        let forked = self.shared.judge.forked();
        let Some(snapshot) = self.shared.store.load() else {
            // On which log we shall stand is not known yet.
            let why = forked.first().map(ToString::to_string).unwrap_or_default();
            return Condition { name: "log", met: forked.is_empty(), why };
        };
        let judged = snapshot.logged(&self.shared.judge);
        let why = match (&judged, forked.first()) {
            (Err(not_logged), _) => format!("our own SVID does not count: {not_logged}"),
            (Ok(()), Some(fork)) => format!("we serve on, but {fork}"),
            (Ok(()), None) => Duty::of(&snapshot.bundle).to_string(),
        };
        Condition { name: "log", met: judged.is_ok(), why }
    }

    /// Where controllers decide who may enter: unmet until the first one has answered.
    fn policy(&self) -> Option<Condition> {
        let in_force = self.shared.policy_desk.in_force()?;
        let why = match (in_force.version, in_force.is_connected) {
            (None, _) => "policy_pending: no controller has answered yet, nobody enters".to_owned(),
            (Some(version), true) => format!("version {version}"),
            (Some(version), false) => {
                format!("version {version}, as last known; no controller tells us now")
            }
        };
        Some(Condition { name: "policy", met: in_force.version.is_some(), why })
    }

    fn open(&self) -> Condition {
        let leaving = self.shared.door.is_leaving();
        let why = if leaving { "leaving".to_owned() } else { String::new() };
        // The ops port is served only once every listener is bound.
        Condition { name: "listeners", met: !leaving, why }
    }
}

impl Health for Readiness {
    fn is_live(&self) -> bool {
        true
    }

    fn conditions(&self) -> Vec<Condition> {
        let mut conditions = vec![self.identity(), self.rules(), self.log(), self.open()];
        conditions.extend(self.policy());
        self.shared.metrics.ready(conditions.iter().all(|condition| condition.met));
        conditions
    }

    fn metrics(&self) -> String {
        self.conditions();
        self.shared.metrics.render()
    }
}
