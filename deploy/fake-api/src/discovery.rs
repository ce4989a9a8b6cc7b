//! What the API server says of itself: its version, and which groups it serves. No resources of theirs.
//!
//! Never: in the way of an object; a group that is said not to be served stores all the same.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::status::Refused;

pub(crate) struct Discovery {
    version: String,
    /// Such as `policy/v1`.
    missing: BTreeSet<String>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { version: "v1.33.0-fake".to_owned(), missing: BTreeSet::new() }
    }
}

impl Discovery {
    pub(crate) fn set_version(&mut self, version: &str) {
        version.clone_into(&mut self.version);
    }

    pub(crate) fn leave_out(&mut self, group: &str) {
        self.missing.insert(group.to_owned());
    }

    /// `None`: the path is about something else.
    pub(crate) fn answer(&self, path: &str) -> Option<Result<Value, Refused>> {
        if path == "/version" {
            let mut parts = self.version.trim_start_matches('v').split('.');
            let mut part = || parts.next().unwrap_or_default().to_owned();
            let (major, minor) = (part(), part());
            return Some(Ok(json!({"major": major, "minor": minor, "gitVersion": self.version})));
        }
        let group = path.strip_prefix("/apis/")?;
        if group.split('/').count() != 2 {
            return None;
        }
        if self.missing.contains(group) {
            return Some(Err(Refused::no_such_path()));
        }
        let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": []});
        Some(Ok(list))
    }
}
