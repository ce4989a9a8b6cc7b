//! Policies: PeerAuthentications and AuthorizationPolicies of the cluster, compiled for each workload that
//! has a sidecar, and judged in their own status. Called by `services`, whose port tells the sidecars.
//!
//! Never: decides about a connection (the sidecar does), opens what a policy that cannot be read may have
//! closed, follows Pods or Services itself (`services` does, and passes on what it hears).

// SPDX-License-Identifier: Apache-2.0

mod authentication;
mod authorization;
mod catalog;
mod compile;
mod date;
mod demands;
mod fields;
mod hub;
mod objects;
mod status;
#[cfg(test)]
mod tests;
mod workloads;
mod write;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use myelin_sidecar::addr::Clock;

use self::objects::Kind;
use self::write::Writer;
use crate::cluster::Cluster;
use crate::metrics::Metrics;

pub use self::hub::{Following, Policies};
pub use self::objects::{Pod, Service};

/// Follows the policies and keeps their status right, until dropped.
pub async fn keep(
    policies: Arc<Policies>,
    cluster: Cluster,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Infallible {
    let (one, other) = (Kind::Authentication, Kind::Authorization);
    let writer = Writer {
        cluster: cluster.clone(),
        policies: Arc::clone(&policies),
        metrics,
        clock,
        said: HashMap::new(),
    };
    tokio::select! {
        never = cluster.follow(one.path(), |news| policies.policies(one, news)) => never,
        never = cluster.follow(other.path(), |news| policies.policies(other, news)) => never,
        never = writer.run() => never,
    }
}
