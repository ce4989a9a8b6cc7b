//! A collection of the API server as it is and as it changes: listed page by page, watched from there
//! on, listed again where the watch is too old. Called by rooms that keep an image of it.
//!
//! Never: holds more of an object than the caller's type reads, ends, skips a change.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::{ANSWER_WITHIN, Cluster, MAX_PAGES, WATCH_GRACE, WATCH_SECONDS, percent_encoded};

/// Objects of one page: of each a few fields are kept, but the page is held whole, and an object may have
/// a megabyte and a half.
const PAGE: usize = 100;

/// Between two tries while the API server is away: then doubled, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The API server has forgotten the version from which it was asked to go on.
const GONE: u16 = 410;

/// What of every object is read, whatever its kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub resource_version: String,
    pub labels: std::collections::BTreeMap<String, String>,
}

/// An object as its follower reads it.
pub trait Read: DeserializeOwned + Clone {
    fn meta(&self) -> &Meta;
}

/// What is told of a collection.
#[derive(Debug)]
pub enum News<T> {
    /// All that there is: whatever was known before counts no more.
    All(Vec<T>),
    Now(T),
    Gone(T),
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// Why a list or a watch came to its end.
enum Ended {
    /// It has to be listed anew.
    TooOld,
    /// Asked again from where we are.
    Failed(String),
}

impl Cluster {
    /// Tells of all objects at `path`, and of each change, until dropped.
    pub async fn follow<T: Read>(&self, path: &str, mut tell: impl FnMut(News<T>)) -> Infallible {
        let mut wait = FIRST_WAIT;
        loop {
            let mut version = match self.list_all(path).await {
                Ok((items, version)) => {
                    tell(News::All(items));
                    version
                }
                Err(why) => {
                    if let Ended::Failed(why) = why {
                        tracing::warn!(path, "cannot be listed: {why}: it is asked again");
                    }
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                    continue;
                }
            };
            wait = FIRST_WAIT;
            loop {
                let Err(ended) = self.watch_from(path, &mut version, &mut wait, &mut tell).await;
                let Ended::Failed(why) = ended else { break };
                tracing::info!(path, "the watch broke: {why}: it goes on from where it was");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    async fn list_all<T: Read>(&self, path: &str) -> Result<(Vec<T>, String), Ended> {
        let (mut all, mut next) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let mut asked = format!("{path}?limit={PAGE}");
            if !next.is_empty() {
                asked = format!("{asked}&continue={}", percent_encoded(&next));
            }
            let client = self.client();
            let answered = timeout(ANSWER_WITHIN, client.request::<Page<T>>(get(&asked)?));
            let page = answered.await.map_err(|_| silent())?.map_err(|why| ended(&why))?;
            all.extend(page.items);
            next = page.metadata.next;
            if next.is_empty() {
                return Ok((all, page.metadata.resource_version));
            }
        }
        Err(Ended::Failed("it has more pages than any cluster".to_owned()))
    }

    /// Watches once, then again, until something is wrong.
    async fn watch_from<T: Read>(
        &self,
        path: &str,
        version: &mut String,
        wait: &mut Duration,
        tell: &mut impl FnMut(News<T>),
    ) -> Result<Infallible, Ended> {
        loop {
            let asked = format!(
                "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
                percent_encoded(version)
            );
            let client = self.client();
            let opened = timeout(ANSWER_WITHIN, client.request_events::<T>(get(&asked)?)).await;
            let events = opened.map_err(|_| silent())?.map_err(|why| ended(&why))?;
            let longest = Duration::from_secs(WATCH_SECONDS) + WATCH_GRACE;
            let mut events = pin!(events.take_until(sleep(longest)));
            while let Some(event) = events.next().await {
                let event = event.map_err(|why| ended(&why))?;
                *wait = FIRST_WAIT;
                match event {
                    WatchEvent::Added(it) | WatchEvent::Modified(it) => {
                        version.clone_from(&it.meta().resource_version);
                        tell(News::Now(it));
                    }
                    WatchEvent::Deleted(it) => {
                        version.clone_from(&it.meta().resource_version);
                        tell(News::Gone(it));
                    }
                    WatchEvent::Bookmark(mark) => {
                        version.clone_from(&mark.metadata.resource_version);
                    }
                    WatchEvent::Error(status) => {
                        return Err(ended(&kube::Error::Api(status)));
                    }
                }
            }
            // A watch that ends well may end at once, again and again.
            sleep(*wait).await;
        }
    }
}

fn get(path: &str) -> Result<hyper::Request<Vec<u8>>, Ended> {
    let request = hyper::Request::get(path).body(Vec::new());
    request.map_err(|why| Ended::Failed(why.to_string()))
}

fn silent() -> Ended {
    Ended::Failed("no answer in time".to_owned())
}

fn ended(why: &kube::Error) -> Ended {
    match why {
        kube::Error::Api(status) if status.code == GONE => Ended::TooOld,
        other => Ended::Failed(super::error::causes(other)),
    }
}
