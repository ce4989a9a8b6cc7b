//! A collection of the API server as it is and as it changes: listed page by page, watched from there
//! on, listed again where the watch is too old. Called by rooms that keep an image of it.
//!
//! Never: holds more of an object than the caller's type reads, ends, skips a change, keeps of an object
//! what it no longer says, asks again without a pause.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};

use super::lines::{Lines, NoLine};
use super::page::{self, Unread};
use super::{Cluster, ClusterError, WATCH_GRACE, WATCH_SECONDS, error, percent_encoded, within};

/// Objects of one page: of each a few fields are kept, but the page is held whole.
const PAGE: usize = 100;

/// Between two tries while the API server is away, or forgets what it has just said: then doubled, up to
/// the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The API server has forgotten the version from which it was asked to go on.
const GONE: u16 = 410;

/// Objects that cannot be read which are named, of one collection: enough to find out who writes them.
const MAX_NAMED: usize = 16;

/// What of every object is read, whatever its kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub resource_version: String,
    /// Grows with each change of what is wanted.
    pub generation: i64,
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
    /// It is gone, or there is no telling what it is now.
    Gone(Meta),
}

/// One line of a watch.
#[derive(Deserialize)]
struct Event<'e> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'e RawValue,
}

/// What an error says that comes as an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

/// Why a list or a watch came to its end.
enum Ended {
    /// It has to be listed anew.
    TooOld,
    /// Asked again from where we are.
    Failed(String),
}

/// One collection, and how far it is known.
struct Following<'f, F> {
    cluster: &'f Cluster,
    path: &'f str,
    version: String,
    /// Before it is asked again, where nothing is heard.
    wait: Pause,
    /// Before it is listed again, where what was listed is too old at once.
    again: Pause,
    said: BTreeSet<String>,
    tell: F,
}

/// A wait that doubles each time, until all is well.
struct Pause(Duration);

impl Cluster {
    /// Tells of all objects at `path`, and of each change, until dropped.
    pub async fn follow<T: Read>(&self, path: &str, tell: impl FnMut(News<T>)) -> Infallible {
        let (version, said) = (String::new(), BTreeSet::new());
        let (wait, again) = (Pause(FIRST_WAIT), Pause(FIRST_WAIT));
        let mut following = Following { cluster: self, path, version, wait, again, said, tell };
        loop {
            let Err(ended) = following.list_and_watch().await;
            match ended {
                Ended::Failed(why) => {
                    tracing::warn!(path, "{why}");
                    following.wait.pause().await;
                }
                Ended::TooOld => {
                    tracing::info!(path, "what was known is too old: it is listed again");
                    following.again.pause().await;
                }
            }
        }
    }
}

impl<F> Following<'_, F> {
    /// Lists, and watches until it has to be listed again.
    async fn list_and_watch<T: Read>(&mut self) -> Result<Infallible, Ended>
    where
        F: FnMut(News<T>),
    {
        let listed = self.cluster.list_of::<T>(self.path, PAGE).await?;
        listed.unread.iter().for_each(|unread| self.say(unread));
        self.version = listed.version;
        self.wait.reset();
        (self.tell)(News::All(listed.items));
        loop {
            let began = Instant::now();
            let Err(ended) = self.watch().await;
            // One that comes to its end at once may do so again and again.
            if began.elapsed() > LONGEST_WAIT {
                self.wait.reset();
                self.again.reset();
            }
            match ended {
                Ended::TooOld => return Err(ended),
                Ended::Failed(why) if why.is_empty() => {}
                Ended::Failed(why) => {
                    tracing::info!(path = self.path, "{why}; the watch goes on from where it was");
                }
            }
            self.wait.pause().await;
        }
    }

    /// Watches once, to the end.
    async fn watch<T: Read>(&mut self) -> Result<Infallible, Ended>
    where
        F: FnMut(News<T>),
    {
        let asked = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            self.path,
            percent_encoded(&self.version)
        );
        let what = || format!("WATCH {}", self.path);
        let answer = within(what, self.cluster.send("GET", &asked, None)).await?;
        let (status, body) = (answer.status(), answer.into_body());
        if status != StatusCode::OK {
            return Err(error::refused(what(), status, &[]).into());
        }
        let until = Instant::now() + Duration::from_secs(WATCH_SECONDS) + WATCH_GRACE;
        let mut lines = Lines::new(body);
        loop {
            let Ok(line) = timeout_at(until, lines.next()).await else {
                return Err(Ended::Failed("it lasts longer than it should".to_owned()));
            };
            match line {
                Ok(line) => self.event(&line)?,
                Err(NoLine::End) => return Err(Ended::Failed(String::new())),
                Err(NoLine::Broken(why)) => return Err(Ended::Failed(why)),
                // Page by page there is a bound for each answer as well, and a shorter page.
                Err(NoLine::TooLong) => return Err(Ended::TooOld),
            }
        }
    }

    fn event<T: Read>(&mut self, line: &[u8]) -> Result<(), Ended>
    where
        F: FnMut(News<T>),
    {
        // What cannot be read may have been about anything.
        let Ok(Event { kind, object }) = serde_json::from_slice(line) else {
            return Err(Ended::TooOld);
        };
        if kind == "ERROR" {
            let status: Status = serde_json::from_str(object.get()).unwrap_or_default();
            return Err(match status.code {
                GONE => Ended::TooOld,
                code => Ended::Failed(format!("{code}: {}", error::quoted(&status.message))),
            });
        }
        let meta = page::meta(object).ok_or(Ended::TooOld)?;
        self.version.clone_from(&meta.resource_version);
        self.wait.reset();
        self.again.reset();
        match kind.as_str() {
            "BOOKMARK" => {}
            "DELETED" => (self.tell)(News::Gone(meta)),
            _ => match page::read(object) {
                Ok(it) => (self.tell)(News::Now(it)),
                Err(unread) => {
                    self.say(&unread);
                    (self.tell)(News::Gone(meta));
                }
            },
        }
        Ok(())
    }

    /// Each is named once, however often it comes.
    fn say(&mut self, unread: &Unread) {
        let Unread { name, column } = unread;
        if self.said.len() >= MAX_NAMED || !self.said.insert(name.clone()) {
            return;
        }
        let path = self.path;
        tracing::warn!(
            path,
            name,
            column,
            "an object cannot be read, and is as if it were not there"
        );
        if self.said.len() == MAX_NAMED {
            tracing::warn!(path, "of those that cannot be read, no more are named");
        }
    }
}

impl Pause {
    async fn pause(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }

    fn reset(&mut self) {
        self.0 = FIRST_WAIT;
    }
}

impl From<ClusterError> for Ended {
    fn from(why: ClusterError) -> Self {
        match why {
            ClusterError::Refused { code: GONE, .. } => Self::TooOld,
            other => Self::Failed(other.to_string()),
        }
    }
}
