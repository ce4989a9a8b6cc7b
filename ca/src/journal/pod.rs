//! Which pod a host key is of, as its cluster names it. Written by `authority` with each issue to a
//! pod; read where the pod stands in the way of another.
//!
//! Never: what a pod may have; its evidence says that anew at each issue.

// SPDX-License-Identifier: Apache-2.0

use serde::{Deserialize, Serialize};

/// A pod of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// The cluster, by the issuer of its tokens.
    pub issuer: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The cluster said that it is there no more. A pod that ended never comes back.
    #[serde(default)]
    pub gone: bool,
}
