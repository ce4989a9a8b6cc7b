//! The service directory: what is behind the virtual addresses of a cluster's Services, told to the
//! sidecars that ask; and at the same port the policies of their workloads. It follows Services, EndpointSlices, Pods and Nodes, and serves under an SVID that
//! this controller gets from the CA as any workload does. Called by `app`.
//!
//! Never: holds a signing key; a Secret, or more of a Pod than who it is and where.

// SPDX-License-Identifier: Apache-2.0

mod catalog;
mod connection;
mod descriptors;
mod hub;
mod moved;
mod objects;
mod own;
mod policies;
mod route;
mod serve;
mod talk;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::id::SpiffeId;
use myelin_sidecar::addr::Clock;
use myelin_sidecar::credentials::StartError;
use tokio::net::TcpListener;

use self::hub::Hub;
use self::objects::{Pod, Service};
use self::own::Own;
use self::serve::Api;
use crate::cluster::{Cluster, News};
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::{bundle, ca_address};

/// Names of ports, accounts, nodes and zones that are held once each; then they are gathered anew.
const MAX_NAMES: usize = 65_536;

/// Between two looks for what the SVID needs: the bundle's file and the CA's address.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The stubs that tonic makes of the proto file.
#[allow(
    clippy::all,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::large_futures,
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    missing_docs
)]
mod stubs {
    tonic::include_proto!("myelin.services.v1");
    pub mod policy {
        tonic::include_proto!("myelin.policy.v1");
    }
}

/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PODS: &str = "/api/v1/pods";
const NODES: &str = "/api/v1/nodes";

/// What the operator wrote, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub listen: SocketAddr,
    /// What sidecars are told.
    pub address: Vec<SocketAddr>,
    /// Who this controller is.
    pub id: SpiffeId,
    /// The projected service-account token by which the CA knows us.
    pub token_file: PathBuf,
    /// Host key, bundle and deny list of our own.
    pub state_dir: PathBuf,
    /// Whether sidecars are told of policies, too; then this is the mesh's own namespace.
    pub policies: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    #[error("the controller gets no SVID: {0}")]
    Start(#[from] StartError),
    #[error("the port of the service directory ended: {0}")]
    Served(#[from] tonic::transport::Error),
}

/// The directory, and what it needs of the other rooms.
pub struct Directory {
    hub: Arc<Hub>,
    /// Absent: nobody is told of policies.
    policies: Option<Arc<Policies>>,
    own: Own,
    cluster: Cluster,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Whether the cluster was read once.
#[derive(Clone)]
pub struct Listed(Arc<Hub>);

impl Listed {
    pub fn is_complete(&self) -> bool {
        self.0.is_complete()
    }
}

impl Directory {
    pub fn listed(&self) -> Listed {
        Listed(Arc::clone(&self.hub))
    }

    pub fn new(
        config: Config,
        cluster: Cluster,
        ca: ca_address::Held,
        bundle: bundle::Held,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        descriptors::raise_limit();
        let trust_domain = config.id.trust_domain();
        let hub = Hub::new(trust_domain.clone());
        let root = config.policies.as_deref();
        let policies =
            root.map(|root| Policies::new(trust_domain.clone(), root, Arc::clone(&metrics)));
        let own = Own::new(config, ca, bundle, clock.clone());
        Self { hub, policies, own, cluster, metrics, clock }
    }

    /// Follows the cluster and answers until dropped, or until it is clear that it never can.
    pub async fn serve(self, listener: TcpListener) -> Result<(), ServicesError> {
        let Self { hub, policies, own, cluster, metrics, clock } = self;
        let store = Arc::clone(&own.store);
        let told = policies.clone();
        let keep = {
            let (policies, cluster) = (policies.clone(), cluster.clone());
            let (metrics, clock) = (Arc::clone(&metrics), clock.clone());
            async move {
                match policies {
                    Some(policies) => policies::keep(policies, cluster, metrics, clock).await,
                    None => std::future::pending().await,
                }
            }
        };
        let api = Api { hub: Arc::clone(&hub), policies, store, clock, metrics };
        let services = |news: News<Service>| {
            told.iter().for_each(|it| it.services(policies::services(&news)));
            hub.services(news);
        };
        let pods = |news: News<Pod>| {
            told.iter().for_each(|it| it.pods(policies::pods(&news)));
            hub.pods(news);
        };
        tokio::select! {
            never = cluster.follow(SERVICES, services) => match never {},
            never = cluster.follow(SLICES, |news| hub.slices(news)) => match never {},
            never = cluster.follow(PODS, pods) => match never {},
            never = cluster.follow(NODES, |news| hub.nodes(news)) => match never {},
            never = keep => match never {},
            ended = own.keep() => Ok(ended?),
            served = api.serve(listener) => Ok(served?),
        }
    }
}
