//! The few requests that we make of the API server, each with a deadline, and what their failures
//! mean. Used by the other files of this folder.
//!
//! Never: tries again by itself; whoever asks knows what a second try would mean.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams, WatchEvent, WatchParams};
use prost::Message;
use tokio::time::timeout;

use super::shape::{Head, Segment};
use crate::store::StoreError;

/// One request's time: an API server that needs longer is choosing a leader of its etcd, or is gone.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);
/// How long one watch lasts: a connection that died in silence is noticed by then. Reads do not
/// wait for it.
const WATCH_SECONDS: u32 = 60;
/// How much longer than that its end may take.
const WATCH_GRACE: Duration = Duration::from_secs(5);
/// Longest part of what the API server said that goes into our log.
const MAX_QUOTED_CHARACTERS: usize = 300;
/// The key within each Secret.
const DATA: &str = "state";
/// What our Secrets say that they are.
const KIND: &str = "myelin.dev/ca-state";

/// Our Secrets in one namespace.
#[derive(Clone)]
pub(super) struct Secrets {
    api: Api<Secret>,
    name: String,
}

/// Why a request did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// Somebody else wrote first.
    Conflict,
    /// There is no such Secret.
    Missing,
    /// It may help to ask again; whether something was written is open.
    Again(String),
    /// It does not help to ask again.
    Final(StoreError),
}

impl Secrets {
    pub(super) fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    fn head_name(&self) -> String {
        format!("{}-head", self.name)
    }

    fn segment_name(&self, index: u32) -> String {
        format!("{}-{index}", self.name)
    }

    /// The `resourceVersion` of the head at this moment, and nothing else of it.
    pub(super) async fn head_version(&self) -> Result<String, Failure> {
        let name = self.head_name();
        let found = within(self.api.get_metadata(&name)).await?;
        version(&found.metadata)
    }

    /// The head at this moment.
    pub(super) async fn head(&self) -> Result<(Head, String), Failure> {
        let (bytes, version) = self.read(&self.head_name()).await?;
        Ok((Head::read(&bytes).map_err(Failure::Final)?, version))
    }

    pub(super) async fn segment(&self, index: u32) -> Result<(Segment, String), Failure> {
        let (bytes, version) = self.read(&self.segment_name(index)).await?;
        Ok((Segment::read(&bytes).map_err(Failure::Final)?, version))
    }

    /// Writes the head if it still is the one with this version; None: if there is none.
    pub(super) async fn put_head(
        &self,
        head: &Head,
        version: Option<&str>,
    ) -> Result<String, Failure> {
        self.write(self.head_name(), head.encode_to_vec(), version).await
    }

    /// The same for a segment.
    pub(super) async fn put_segment(
        &self,
        index: u32,
        segment: &Segment,
        version: Option<&str>,
    ) -> Result<String, Failure> {
        self.write(self.segment_name(index), segment.encode_to_vec(), version).await
    }

    /// Heads as they come to be after this version, until the watch ends.
    pub(super) async fn watch_head(
        &self,
        version: &str,
    ) -> Result<BoxStream<'static, Result<(Head, String), Failure>>, Failure> {
        let name = self.head_name();
        let params =
            WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
        let events = within(self.api.watch(&params, version)).await?;
        let heads = events.filter_map(async |event| match event {
            Ok(WatchEvent::Added(secret) | WatchEvent::Modified(secret)) => {
                let read = held(&secret).and_then(|(bytes, version)| {
                    Ok((Head::read(bytes).map_err(Failure::Final)?, version))
                });
                Some(read)
            }
            Ok(WatchEvent::Bookmark(_)) => None,
            Ok(WatchEvent::Deleted(_)) => Some(Err(Failure::Missing)),
            Ok(WatchEvent::Error(status)) => Some(Err(judge(&kube::Error::Api(status)))),
            Err(error) => Some(Err(judge(&error))),
        });
        let until = Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_GRACE;
        Ok(heads.take_until(tokio::time::sleep(until)).boxed())
    }

    async fn read(&self, name: &str) -> Result<(Vec<u8>, String), Failure> {
        let secret = within(self.api.get(name)).await?;
        let (bytes, version) = held(&secret)?;
        Ok((bytes.to_vec(), version))
    }

    async fn write(
        &self,
        name: String,
        bytes: Vec<u8>,
        version: Option<&str>,
    ) -> Result<String, Failure> {
        let labels = [("app.kubernetes.io/managed-by", "myelin-ca")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from(labels)),
                resource_version: version.map(str::to_owned),
                ..ObjectMeta::default()
            },
            type_: Some(KIND.to_owned()),
            data: Some(BTreeMap::from([(DATA.to_owned(), ByteString(bytes))])),
            ..Secret::default()
        };
        let params = PostParams::default();
        let written = match version {
            Some(_) => within(self.api.replace(&name, &params, &secret)).await?,
            None => within(self.api.create(&params, &secret)).await?,
        };
        self::version(&written.metadata)
    }
}

fn held(secret: &Secret) -> Result<(&[u8], String), Failure> {
    let data = secret.data.as_ref().and_then(|data| data.get(DATA));
    let missing = || StoreError::KubernetesState(format!("a Secret of ours has no {DATA:?}"));
    let bytes = data.ok_or_else(|| Failure::Final(missing()))?;
    Ok((&bytes.0, version(&secret.metadata)?))
}

fn version(metadata: &ObjectMeta) -> Result<String, Failure> {
    let missing = || Failure::Again("the API server named no resourceVersion".to_owned());
    metadata.resource_version.clone().ok_or_else(missing)
}

async fn within<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
    match timeout(REQUEST_WITHIN, asked).await {
        Ok(answered) => answered.map_err(|error| judge(&error)),
        Err(_) => Err(Failure::Again(format!("no answer within {REQUEST_WITHIN:?}"))),
    }
}

fn judge(error: &kube::Error) -> Failure {
    let kube::Error::Api(status) = error else {
        return Failure::Again(quoted(error));
    };
    let said = bounded(&status.message);
    match status.code {
        404 => Failure::Missing,
        409 => Failure::Conflict,
        401 | 403 => Failure::Final(StoreError::KubernetesDenied(said)),
        400 | 405 | 413 | 415 | 422 => Failure::Final(StoreError::KubernetesRefused(said)),
        code => Failure::Again(format!("{code} {said}")),
    }
}

/// With the causes that the client keeps below its own.
fn quoted(error: &kube::Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    bounded(&said)
}

/// One line, bounded.
fn bounded(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARACTERS).collect()
}

impl Failure {
    /// As an error of the store, for `what`.
    pub(super) fn told(self, what: &'static str) -> StoreError {
        match self {
            Self::Final(error) => error,
            Self::Again(last) => StoreError::KubernetesUnreachable { what, last },
            Self::Conflict => {
                let last = "others wrote first each time".to_owned();
                StoreError::KubernetesUnreachable { what, last }
            }
            Self::Missing => StoreError::KubernetesState("a Secret of ours is gone".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn failures_are_told_apart_by_what_to_do() {
        let judged =
            |code: u16| judge(&kube::Error::Api(Box::new(Status { code, ..Status::default() })));
        assert!(matches!(judged(409), Failure::Conflict));
        assert!(matches!(judged(404), Failure::Missing));
        for code in [410, 429, 500, 503, 504] {
            assert!(matches!(judged(code), Failure::Again(_)), "{code}");
        }
        for (code, word) in [(401, "does not let us"), (403, "does not let us"), (413, "refuses")] {
            let Failure::Final(error) = judged(code) else { panic!("{code}") };
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
