//! Why a call was not answered, in the specification's numbers and its JSON.
//!
//! Never: a text of more than one line.

// SPDX-License-Identifier: Apache-2.0

use serde_json::json;

/// The numbers of the specification (section 5, "Error"), and ours from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    /// The container is gone: the runtime need not clean up.
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Undecodable = 6,
    InvalidNetwork = 7,
    /// The runtime is to ask again.
    TryAgainLater = 11,
    NotAvailable = 50,
    /// The rules of this pod are not what they should be.
    RulesDiffer = 100,
    /// What the pod says of its sidecar cannot be meant.
    InvalidPod = 101,
    /// The kernel did not take the rules.
    RulesRefused = 102,
}

/// An error as a runtime reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    /// What failed.
    pub(crate) msg: String,
    /// What was seen, and what to do.
    pub(crate) details: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        let (msg, details) = (in_one_line(&msg.into()), in_one_line(&details.into()));
        Self { code, msg, details }
    }

    /// The object that goes to standard output.
    pub(crate) fn json(&self, version: &str) -> String {
        json!({
            "cniVersion": version,
            "code": self.code as u32,
            "msg": self.msg,
            "details": self.details,
        })
        .to_string()
    }
}

/// Errors of libraries bring line breaks along.
fn in_one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
