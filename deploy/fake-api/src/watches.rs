//! A watch: lines of JSON, each an event, for as long as the client reads, its time is not over and
//! nobody cuts it.
//!
//! Never: an event twice, or out of order; a test that wants that writes it itself.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::Inner;
use crate::objects::{Event, Objects};
use crate::path::Target;
use crate::selectors::Selectors;
use crate::status::Refused;

/// What the query of a watch says.
pub(crate) struct Asked {
    pub(crate) target: Target,
    pub(crate) selectors: Selectors,
    /// None: from what there is now, which is told first.
    pub(crate) after: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) within: Duration,
}

struct Watching {
    asked: Asked,
    after: u64,
    cut: u64,
    bookmarked: u64,
    lines: VecDeque<Value>,
    over: bool,
    until: Instant,
    stirred: Receiver<u64>,
    inner: Arc<Inner>,
}

/// The body of the answer. An error in it is a connection that breaks.
pub(crate) fn body(
    inner: Arc<Inner>,
    asked: Asked,
) -> Result<impl Stream<Item = io::Result<Frame<Bytes>>> + Send, Refused> {
    let stirred = inner.stirred.subscribe();
    let mut lines = VecDeque::new();
    let (after, cut, bookmarked, over) = {
        let as_status = inner.faults().gone_as_status;
        let objects = inner.objects();
        let mut over = false;
        let after = match asked.after {
            Some(after) if after < objects.forgotten() => {
                let gone = Refused::gone(after, objects.forgotten());
                if as_status {
                    return Err(gone);
                }
                lines.push_back(json!({"type": "ERROR", "object": gone.body()}));
                over = true;
                after
            }
            Some(after) => after,
            None => {
                let all = objects.all(&asked.target.resource, &asked.target.namespace);
                let chosen = all.filter(|object| asked.selectors.hold(object));
                lines.extend(chosen.map(|object| json!({"type": "ADDED", "object": object})));
                objects.version()
            }
        };
        (after, objects.cut, objects.bookmarks, over)
    };
    let until = Instant::now() + asked.within;
    let watching = Watching { asked, after, cut, bookmarked, lines, over, until, stirred, inner };
    Ok(stream::unfold(watching, |mut watching| async move {
        let next = watching.next().await?;
        Some((next, watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(Frame::data(Bytes::from(format!("{line}\n")))));
            }
            if self.over {
                return None;
            }
            let inner = Arc::clone(&self.inner);
            if inner.objects().cut != self.cut {
                self.over = true;
                return Some(Err(io::Error::other("cut by a test")));
            }
            self.look(&inner.objects());
            if !self.lines.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.stirred.changed() => {}
                () = sleep_until(self.until) => {
                    self.over = true;
                    self.bookmark_at(inner.objects().version());
                }
            }
        }
    }

    fn look(&mut self, objects: &Objects) {
        for event in objects.since(self.after) {
            self.after = event.version;
            self.lines.extend(self.line(&event));
        }
        if objects.bookmarks != self.bookmarked {
            self.bookmarked = objects.bookmarks;
            self.bookmark_at(objects.version());
        }
    }

    fn bookmark_at(&mut self, version: u64) {
        if self.asked.bookmarks {
            let resource = &self.asked.target.resource;
            let object = json!({
                "kind": resource.kind(), "apiVersion": resource.api_version(),
                "metadata": {"resourceVersion": version.to_string()},
            });
            self.lines.push_back(json!({"type": "BOOKMARK", "object": object}));
        }
    }

    /// What this watch makes of it: an object that stops being selected is deleted to it.
    fn line(&self, event: &Event) -> Option<Value> {
        let target = &self.asked.target;
        let ours = event.key.group == target.resource.group
            && event.key.resource == target.resource.name
            && (target.namespace.is_empty() || event.key.namespace == target.namespace);
        if !ours {
            return None;
        }
        let selected =
            |object: &Option<Value>| object.clone().filter(|it| self.asked.selectors.hold(it));
        match (selected(&event.before), selected(&event.after)) {
            (None, None) => None,
            (None, Some(object)) => Some(json!({"type": "ADDED", "object": object})),
            (Some(_), Some(object)) => Some(json!({"type": "MODIFIED", "object": object})),
            (Some(mut object), None) => {
                object["metadata"]["resourceVersion"] = json!(event.version.to_string());
                Some(json!({"type": "DELETED", "object": object}))
            }
        }
    }
}
