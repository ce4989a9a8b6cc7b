//! What the Kubernetes API says of pods: just what decides about rules. Called by `plugin` for one pod
//! and by `repair` for those of a node.
//!
//! Never: waits without an end, writes anything, reads more than a bound.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, StatusCode};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One question, its connection included: a kubelet that waits for a pod's network waits minutes, and
/// one more try costs it less than a hung one.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A pod rests in etcd, which takes 1.5 MiB.
const MAX_POD_BYTES: usize = 2 * 1024 * 1024;
/// Pods of one page of a list.
const PAGE: usize = 50;
/// A page: pods are some ten kilobytes each, and some are large.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Pods of one node: a kubelet allows 110 by default, and the largest clusters some hundreds.
const MAX_PODS: usize = 2048;
/// Causes of one error that are told.
const MAX_CAUSES: usize = 8;

/// The text of a sidecar's configuration, as the webhook rendered it into the pod.
const CONFIGURATION: &str = "myelin.dev/sidecar-config";
/// A pod that asks to be injected.
const INJECT: (&str, &str) = ("myelin.dev/inject", "enabled");
/// The API's image of a static pod has a UID of its own, and here the one that the kubelet calls it by.
const MIRROR: &str = "kubernetes.io/config.mirror";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error("{0} cannot be used: {1}")]
    Access(String, String),
    #[error("the API server did not answer within {0:?}")]
    Silent(Duration),
    #[error("the API server cannot be asked: {0}")]
    Unreachable(String),
    #[error("the API server answered {path} with {status}: {said}")]
    Refused { path: String, status: StatusCode, said: String },
    #[error("the API server's answer to {path} cannot be read: {why}")]
    Unreadable { path: String, why: String },
    #[error("more than {MAX_PODS} pods are on this node")]
    TooMany,
}

/// A pod, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PodView {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    container_statuses: Vec<Container>,
    #[serde(default)]
    init_container_statuses: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize)]
struct Container {
    /// `containerd://<id>`; absent before its first start.
    #[serde(default, rename = "containerID")]
    id: Option<String>,
    #[serde(default)]
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerState {
    /// Since when; there while it runs.
    running: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<PodView>,
    #[serde(default)]
    metadata: PageMetadata,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

/// What is read of an answer that is no success.
#[derive(Default, Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
}

/// A client of one API server.
pub(crate) struct Cluster(Client);

impl Cluster {
    /// By a kubeconfig, or with none as a pod reaches its own cluster.
    pub(crate) async fn reach(kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        let named =
            kubeconfig.map_or_else(|| "the pod's service account".into(), Path::to_string_lossy);
        let unusable = |why: String| ClusterError::Access(named.to_string(), why);
        let mut config = match kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path).map_err(|why| unusable(why.to_string()))?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(read, &options).await;
                config.map_err(|why| unusable(why.to_string()))?
            }
            None => Config::incluster().map_err(|why| unusable(why.to_string()))?,
        };
        // One try is one answer: who asks us repeats it.
        config.default_retry = false;
        Ok(Self(Client::try_from(config).map_err(|why| unusable(why.to_string()))?))
    }

    /// The pod, if there is one of this name.
    pub(crate) async fn pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PodView>, ClusterError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        match self.ask(path, MAX_POD_BYTES).await {
            Ok(pod) => Ok(Some(pod)),
            Err(ClusterError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The pods of a node whose name the caller has looked at.
    pub(crate) async fn pods_of(&self, node: &str) -> Result<Vec<PodView>, ClusterError> {
        let (mut pods, mut next) = (Vec::new(), String::new());
        loop {
            let path = format!(
                "/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit={PAGE}&continue={}",
                percent_encoded(&next)
            );
            let page: Page = self.ask(path, MAX_PAGE_BYTES).await?;
            pods.extend(page.items);
            if pods.len() > MAX_PODS {
                return Err(ClusterError::TooMany);
            }
            if page.metadata.next.is_empty() {
                return Ok(pods);
            }
            next = page.metadata.next;
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: String,
        bound: usize,
    ) -> Result<T, ClusterError> {
        let unreadable = |why: String| ClusterError::Unreadable { path: path.clone(), why };
        let request = Request::get(path.as_str()).body(kube::client::Body::empty());
        let request = request.map_err(|why| unreadable(why.to_string()))?;
        let answered = within(async {
            let answer = self
                .0
                .send(request)
                .await
                .map_err(|why| ClusterError::Unreachable(with_causes(&why)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, bound).collect().await;
            let body = body.map_err(|why| unreadable(why.to_string()))?;
            Ok((head.status, body.to_bytes()))
        });
        let (status, body) = answered.await?;
        if !status.is_success() {
            let said = serde_json::from_slice::<Failure>(&body).unwrap_or_default().message;
            let path = path.clone();
            return Err(ClusterError::Refused { path, status, said });
        }
        serde_json::from_slice(&body).map_err(|why| unreadable(why.to_string()))
    }
}

impl PodView {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Whether it is the pod that a kubelet calls by this UID.
    pub(crate) fn is(&self, uid: &str) -> bool {
        let mirrors = self.metadata.annotations.get(MIRROR).is_some_and(|of| of == uid);
        self.metadata.uid == uid || mirrors
    }

    /// It asks for a sidecar and has none: it was made while nobody injected.
    pub(crate) fn was_passed_over(&self) -> bool {
        let asks = self.metadata.labels.get(INJECT.0).is_some_and(|value| value == INJECT.1);
        asks && !self.spec.host_network && !self.metadata.annotations.contains_key(CONFIGURATION)
    }

    /// What its sidecar was told; absent: it has none. A pod in the node's own network is never injected.
    pub(crate) fn configuration(&self) -> Option<&str> {
        let text = self.metadata.annotations.get(CONFIGURATION)?;
        (!self.spec.host_network).then_some(text)
    }

    /// The IDs of its containers, as far as they have run.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &str> {
        self.statuses()
            .filter_map(|container| container.id.as_deref()?.split_once("://").map(|(_, id)| id))
    }

    /// Whether one of its containers runs, as the kubelet said last.
    pub(crate) fn runs(&self) -> bool {
        self.statuses().any(|container| container.state.running.is_some())
    }

    fn statuses(&self) -> impl Iterator<Item = &Container> {
        self.status.init_container_statuses.iter().chain(&self.status.container_statuses)
    }
}

async fn within<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    let ended = tokio::time::timeout(ANSWER_WITHIN, work).await;
    ended.unwrap_or(Err(ClusterError::Silent(ANSWER_WITHIN)))
}

/// What a client says of a failed connection has its reason (a certificate, a refusal) further down.
fn with_causes(error: &dyn Error) -> String {
    let (mut said, mut cause) = (error.to_string(), error.source());
    for _ in 0..MAX_CAUSES {
        let Some(error) = cause else { break };
        let words = error.to_string();
        // Some repeat in their own words what they were caused by.
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        cause = error.source();
    }
    said
}

/// A continue token is base64, of which three characters mean something in a query.
fn percent_encoded(token: &str) -> String {
    token.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}
