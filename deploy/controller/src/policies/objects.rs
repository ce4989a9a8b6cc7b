//! What is read of the objects that decide here: both kinds of policies, whole, and of Services and
//! Pods what selects them. Filled by `hub`'s callers, called by `catalog`.
//!
//! Never: fails for what a policy says; that is judged item by item.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::status::Condition;
use crate::cluster::{Meta, Read};

/// Whose objects these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Authentication,
    Authorization,
}

/// An object of either kind.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Policy {
    pub(super) metadata: Meta,
    #[serde(default, deserialize_with = "whatever_it_is")]
    pub(super) spec: Value,
    #[serde(default, deserialize_with = "whatever_it_is")]
    status: Value,
}

/// A Service, as far as policies are about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Empty: it selects no pods.
    pub selector: BTreeMap<String, String>,
}

/// A Pod, as far as it can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub account: String,
    pub labels: BTreeMap<String, String>,
    /// Empty: it has none of its own, or none any more.
    pub addresses: Vec<IpAddr>,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Nothing where it is no JSON that we take (too deep): an object that is not read as a whole would be as
/// if it were not there, and a policy that is not there opens.
fn whatever_it_is<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

impl Read for Policy {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Policy {
    pub(super) fn key(&self) -> Key {
        Key::new(&self.metadata.namespace, &self.metadata.name)
    }

    /// What somebody has written into its status.
    pub(super) fn condition(&self) -> Option<Condition> {
        Condition::accepted_in(&self.status)
    }
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Authentication, Self::Authorization];

    /// Of all namespaces.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Authentication => "/apis/policy.myelin.dev/v1alpha1/peerauthentications",
            Self::Authorization => "/apis/policy.myelin.dev/v1alpha1/authorizationpolicies",
        }
    }

    pub(super) fn path_of(self, key: &Key) -> String {
        let (group, plural) = self.path().rsplit_once('/').expect("the paths have parts");
        format!("{group}/namespaces/{}/{plural}/{}", key.namespace, key.name)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Authentication => "PeerAuthentication",
            Self::Authorization => "AuthorizationPolicy",
        }
    }
}
