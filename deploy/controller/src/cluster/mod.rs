//! The Kubernetes API: single objects and lists by their path, read, made, replaced, patched and
//! taken away, and the wait until one of them may have changed. Called by the rooms that keep
//! something there or learn from it.
//!
//! Never: an object's content in an error or a log (one of them is a Secret); an answer without a
//! bound; waits for the API without an end; tries again by itself.

// SPDX-License-Identifier: Apache-2.0

mod error;
mod follow;
mod lines;
mod page;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

pub use self::error::ClusterError;
pub use self::follow::{Meta, News, Read};
pub use self::page::Listed;

/// One question, its connection included: small objects, a busy API server. Every loop asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One page of a list, an object, or an event. Read whole, it takes some ten times that. An object was
/// written in at most 1.5 MiB, of which each letter may come back as six (`\u003c`).
const MAX_ANSWER_BYTES: usize = 12 * 1024 * 1024;

/// Pages of one list: in pages of ten, as many namespaces as Kubernetes is tested with.
const MAX_PAGES: usize = 1000;

/// How long the API server lets one watch last: a connection that died in silence is noticed by then.
const WATCH_SECONDS: u64 = 240;

/// How much longer than that its end may take.
const WATCH_GRACE: Duration = Duration::from_secs(10);

/// After a change, for those that come with it: whoever looks sees them all at once.
const SETTLE: Duration = Duration::from_millis(250);

/// Between two looks where nothing can be watched.
const UNWATCHED: Duration = Duration::from_secs(10);

/// A client of one API server.
#[derive(Clone)]
pub struct Cluster(Client);

impl Cluster {
    /// By a kubeconfig, or with none as a pod reaches its own cluster, with the token that the
    /// kubelet renews. Asks nobody yet.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        let mut config = match kubeconfig {
            Some(path) => {
                // The first line: what follows quotes the file, which may hold a credential.
                let unusable = |why: String| ClusterError::Kubeconfig {
                    path: path.to_owned(),
                    why: why.lines().next().unwrap_or_default().to_owned(),
                };
                let read = Kubeconfig::read_from(path).map_err(|why| unusable(why.to_string()))?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(read, &options).await;
                config.map_err(|why| unusable(why.to_string()))?
            }
            None => Config::incluster().map_err(|why| ClusterError::Nowhere(why.to_string()))?,
        };
        config.connect_timeout = Some(ANSWER_WITHIN);
        // One try is one answer: whoever asks knows what a second try would mean.
        config.default_retry = false;
        let client = Client::try_from(config);
        client.map(Self).map_err(|why| ClusterError::Nowhere(why.to_string()))
    }

    /// The client itself, for typed questions.
    pub fn client(&self) -> Client {
        self.0.clone()
    }

    /// `None`: there is no such object.
    pub async fn read(&self, path: &str) -> Result<Option<Value>, ClusterError> {
        match self.say("GET", path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(ClusterError::Refused { code: 404, .. }) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// All that `path` and its query select, so many on a page, whole.
    pub async fn list(&self, path: &str, page: usize) -> Result<Listed, ClusterError> {
        self.list_of(path, page).await
    }

    /// Into the collection at `path`; a conflict if there is one of that name already.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, ClusterError> {
        self.say("POST", path, Some(("application/json", object))).await
    }

    /// Its `metadata.resourceVersion` must be the one that was read; a conflict otherwise.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, ClusterError> {
        self.say("PUT", path, Some(("application/json", object))).await
    }

    /// By RFC 6902.
    pub async fn patch(&self, path: &str, operations: &Value) -> Result<Value, ClusterError> {
        self.say("PATCH", path, Some(("application/json-patch+json", operations))).await
    }

    /// Only the one that was read: its UID and version go along. `false`: it is gone or another.
    pub async fn remove(&self, path: &str, read: &Value) -> Result<bool, ClusterError> {
        let metadata = &read["metadata"];
        let wanted = serde_json::json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {
                "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
            },
        });
        match self.say("DELETE", path, Some(("application/json", &wanted))).await {
            Ok(_) => Ok(true),
            Err(ClusterError::Conflict { .. } | ClusterError::Refused { code: 404, .. }) => {
                Ok(false)
            }
            Err(why) => Err(why),
        }
    }

    /// Ends when what `path` and its query select may have changed since `version`, and some minutes
    /// later at the latest. With no version: what is there already counts as a change. Where nothing
    /// can be watched, it ends after a while, so that whoever waits looks again.
    pub async fn changed(&self, path: &str, version: Option<&str>) {
        match self.watched(path, version).await {
            // Changes come in twos and threes.
            Ok(()) => tokio::time::sleep(SETTLE).await,
            Err(why) => {
                tracing::debug!(%why, "not watched; it is asked again instead");
                tokio::time::sleep(UNWATCHED).await;
            }
        }
    }

    async fn watched(&self, path: &str, version: Option<&str>) -> Result<(), ClusterError> {
        let what = || format!("WATCH {path}");
        let mark = if path.contains('?') { '&' } else { '?' };
        let version = percent_encoded(version.unwrap_or_default());
        let asked = format!(
            "{path}{mark}watch=true&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}"
        );
        let answer = within(what, self.send("GET", &asked, None)).await?;
        let (status, mut body) = (answer.status(), answer.into_body());
        // Too old a version: what there is now has to be read, and that is all there is to do.
        if status == StatusCode::GONE {
            return Ok(());
        }
        if !status.is_success() {
            return Err(error::refused(what(), status, &[]));
        }
        // Whatever comes, an event or the end: the caller reads anew and judges for itself.
        let longest = Duration::from_secs(WATCH_SECONDS) + WATCH_GRACE;
        let _ = tokio::time::timeout(longest, body.frame()).await;
        Ok(())
    }

    async fn say(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, ClusterError> {
        let answer = self.ask(method, path, body).await?;
        serde_json::from_slice(&answer)
            .map_err(|why| error::no_json(format!("{method} {path}"), &why))
    }

    /// The answer as it came, if it is a success.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Bytes, ClusterError> {
        let what = || format!("{method} {path}");
        let answered = within(what, async {
            let answer = self.send(method, path, body).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|why| match why.is::<LengthLimitError>() {
                true => ClusterError::TooLong { what: what(), most: MAX_ANSWER_BYTES },
                false => {
                    let why = "it breaks off".to_owned();
                    ClusterError::Unreadable { what: what(), why }
                }
            })?;
            Ok((head.status, body.to_bytes()))
        });
        let (status, body) = answered.await?;
        if !status.is_success() {
            return Err(error::refused(what(), status, &body));
        }
        Ok(body)
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Response<Body>, ClusterError> {
        let what = || format!("{method} {path}");
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some((kind, value)) => request
                .header(CONTENT_TYPE, kind)
                .body(Body::from(serde_json::to_vec(value).unwrap_or_default())),
            None => request.body(Body::empty()),
        };
        let request = request
            .map_err(|why| ClusterError::Unreadable { what: what(), why: why.to_string() })?;
        let sent = self.0.send(request).await;
        sent.map_err(|why| ClusterError::Unreachable { what: what(), why: error::causes(&why) })
    }
}

async fn within<T>(
    what: impl Fn() -> String,
    work: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    let silent = || {
        let why = format!("no answer within {}", humantime::format_duration(ANSWER_WITHIN));
        ClusterError::Unreachable { what: what(), why }
    };
    tokio::time::timeout(ANSWER_WITHIN, work).await.unwrap_or_else(|_| Err(silent()))
}

/// Of a continue token (base64) or a version, what means something in a query.
fn percent_encoded(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}
