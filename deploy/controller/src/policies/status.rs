//! What a policy's own status says of it: the condition `Accepted`, as the Gateway API means it. Pure.
//! Called by `catalog`, `hub` and `write`.
//!
//! Never: changes what somebody else has written into a status; says how many pods are selected, so that
//! a rollout writes nothing.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use serde_json::{Map, Value, json};

use super::date;
use super::fields::{Target, Targets, Wrong};
use super::workloads::Selector;

const ACCEPTED: &str = "Accepted";

/// Longest message, in letters: one line of `kubectl describe`. The schema takes 32768.
const MAX_MESSAGE_CHARS: usize = 400;

/// What the API server holds of our condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    status: String,
    reason: String,
    message: String,
    observed_generation: i64,
}

/// What we think of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    reason: Reason,
    message: String,
    generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Accepted,
    /// Part of it cannot be read; that part restricts, and opens nothing.
    Invalid,
    TargetNotFound,
}

impl Condition {
    pub(super) fn accepted_in(status: &Value) -> Option<Self> {
        let conditions = status.get("conditions")?.as_array()?;
        let ours = conditions.iter().find(|it| it["type"] == ACCEPTED)?;
        let text = |field: &str| ours[field].as_str().unwrap_or_default().to_owned();
        Some(Self {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
            observed_generation: ours["observedGeneration"].as_i64().unwrap_or_default(),
        })
    }

    /// Of the spec that this verdict is about, or of a later one.
    pub(super) fn is_of(&self, verdict: &Verdict) -> bool {
        self.observed_generation >= verdict.generation
    }
}

impl Verdict {
    /// `selector`: that of a Service of the policy's namespace, by its name.
    pub(super) fn of<'s>(
        generation: i64,
        targets: &Targets,
        wrong: Option<&Wrong>,
        selector: impl Fn(&str) -> Option<&'s Selector>,
    ) -> Self {
        let (reason, message) = match (wrong, missing(targets, selector)) {
            (Some(Wrong(why)), _) => {
                (Reason::Invalid, format!("{why}; what cannot be read opens nothing"))
            }
            (None, Some(why)) => (Reason::TargetNotFound, why),
            (None, None) => {
                (Reason::Accepted, "sidecars of the workloads it is about follow it".into())
            }
        };
        let message = message.chars().filter(|it| !it.is_control()).take(MAX_MESSAGE_CHARS);
        Self { reason, message: message.collect(), generation }
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.reason == Reason::Accepted
    }

    fn status(&self) -> &'static str {
        if self.is_accepted() { "True" } else { "False" }
    }

    fn condition(&self) -> Condition {
        Condition {
            status: self.status().to_owned(),
            reason: self.reason.to_string(),
            message: self.message.clone(),
            observed_generation: self.generation,
        }
    }

    pub(super) fn is_said_by(&self, condition: Option<&Condition>) -> bool {
        condition == Some(&self.condition())
    }

    /// The object with this verdict in its status; `None`: it is there, or the object is another by now.
    pub(super) fn written_into(&self, object: &Value, now: u64) -> Option<Value> {
        if object["metadata"]["generation"].as_i64().unwrap_or_default() != self.generation {
            return None;
        }
        let status = object.get("status").unwrap_or(&Value::Null);
        let before = Condition::accepted_in(status);
        if self.is_said_by(before.as_ref()) {
            return None;
        }
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let place = conditions.iter().position(|it| it["type"] == ACCEPTED);
        // The moment of the last turn from True to False or back.
        let since = match (place, before) {
            (Some(place), Some(before)) if before.status == self.status() => {
                conditions[place]["lastTransitionTime"].clone()
            }
            _ => json!(date::rfc3339(now)),
        };
        let ours = json!({
            "type": ACCEPTED, "status": self.status(), "reason": self.reason.to_string(),
            "message": self.message, "observedGeneration": self.generation,
            "lastTransitionTime": since,
        });
        match place {
            Some(place) => conditions[place] = ours,
            None => conditions.push(ours),
        }
        let mut object = object.clone();
        if !object["status"].is_object() {
            object["status"] = Value::Object(Map::new());
        }
        object["status"]["conditions"] = Value::Array(conditions);
        Some(object)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "Accepted",
            Self::Invalid => "Invalid",
            Self::TargetNotFound => "TargetNotFound",
        })
    }
}

/// The first target that selects nobody.
fn missing<'s>(
    targets: &Targets,
    selector: impl Fn(&str) -> Option<&'s Selector>,
) -> Option<String> {
    let Targets::These(these) = targets else { return None };
    these.iter().find_map(|target| {
        let Target::Service(name) = target else { return None };
        match selector(name) {
            None => {
                Some(format!("there is no Service {name} in this namespace; it selects nobody"))
            }
            Some(selector) if selector.is_empty() => {
                Some(format!("the Service {name} has no selector; it selects nobody"))
            }
            Some(_) => None,
        }
    })
}
