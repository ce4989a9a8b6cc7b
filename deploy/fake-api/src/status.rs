//! What is answered when something is not as the client would have it: `Status` objects, with the
//! codes and reasons of a real server.
//!
//! Never: a success.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use crate::path::Target;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub(crate) fn not_found(target: &Target) -> Self {
        let name = target.name.as_deref().unwrap_or_default();
        Self::new(404, "NotFound", format!("{} {name:?} not found", target.resource.name))
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn exists(target: &Target, name: &str) -> Self {
        let resource = &target.resource.name;
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
    }

    pub(crate) fn conflict(target: &Target, why: &str) -> Self {
        let (resource, name) = (&target.resource.name, target.name.as_deref().unwrap_or_default());
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message)
    }

    pub(crate) fn gone(after: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {after} ({oldest})"))
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// By its code alone, as trouble asks for it.
    pub(crate) fn of_code(code: u16) -> Self {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden: made up by a test"),
            404 => ("NotFound", "not found: made up by a test"),
            409 => (
                "Conflict",
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            410 => ("Expired", "too old resource version: made up by a test"),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            504 => ("Timeout", "the server was unable to return a response in the time allotted"),
            _ => ("InternalError", "an error on the server: made up by a test"),
        };
        Self::new(code, reason, message)
    }

    pub(crate) fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}
