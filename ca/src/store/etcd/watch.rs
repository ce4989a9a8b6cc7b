//! A watch as one stream of one member. It ends with the member, with its leader, or when what it
//! should begin with is compacted away; the reader then lists and watches again.
//!
//! Never: resumes by itself: the reader would not know what it missed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::Etcd;
use super::cluster::{Member, request};
use super::refusal::{Failure, judge};
use super::stubs::{Event, WatchCreateRequest, WatchRequest, WatchResponse, event, watch_request};
use super::words::{self, Words, signed, unsigned};
use crate::store::{Change, Changes, StoreError};

struct Open {
    answers: Streaming<WatchResponse>,
    /// The member ends the watch when we stop asking.
    _asking: mpsc::Sender<WatchRequest>,
}

/// A watch that is read.
struct Reading {
    open: Open,
    words: Words,
    after: u64,
    told: VecDeque<Change>,
    over: bool,
}

impl Etcd {
    pub(super) async fn watch_now(&self, prefix: &str, after: u64) -> Result<Changes, StoreError> {
        let (key, range_end) = self.words.span(prefix);
        let create = WatchCreateRequest { key, range_end, start_revision: signed(after) + 1 };
        let told = self.cluster.ask("a watch", |member| open(member, create.clone()));
        let open = told.await?.answer;
        let words = self.words.clone();
        let reading = Reading { open, words, after, told: VecDeque::new(), over: false };
        let changes = stream::unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Some((next, reading))
        });
        Ok(changes.boxed())
    }
}

/// Opens the stream and waits until the watch is in place.
async fn open(member: Member, create: WatchCreateRequest) -> Result<Response<Open>, Status> {
    let (asking, asked) = mpsc::channel(1);
    let create = Some(watch_request::RequestUnion::CreateRequest(create));
    let first = WatchRequest { request_union: create };
    asking.try_send(first).map_err(|_| Status::internal("the watch's first word has no room"))?;
    let opened = member.watch().watch(request(ReceiverStream::new(asked))).await?;
    let mut answers = opened.into_inner();
    match answers.message().await? {
        Some(answer) if answer.created && !answer.canceled => {
            Ok(Response::new(Open { answers, _asking: asking }))
        }
        Some(answer) => Err(Status::permission_denied(answer.cancel_reason)),
        None => Err(Status::unavailable("the watch ended before it began")),
    }
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Change, StoreError>> {
        loop {
            if let Some(change) = self.told.pop_front() {
                return Some(Ok(change));
            }
            if self.over {
                return None;
            }
            match self.open.answers.message().await {
                Ok(Some(answer)) if answer.canceled && answer.compact_revision > 0 => {
                    return self.end(StoreError::Behind(self.after));
                }
                Ok(Some(answer)) if answer.canceled => {
                    return self.end(broken(answer.cancel_reason));
                }
                Ok(Some(answer)) => {
                    let words = &self.words;
                    let changes =
                        answer.events.into_iter().filter_map(|event| change(words, event));
                    self.told.extend(changes);
                }
                Ok(None) => return self.end(broken("the member ended it".to_owned())),
                Err(status) => {
                    return match judge(&status) {
                        Failure::Final(error) => self.end(error),
                        Failure::Elsewhere(said) => self.end(broken(said)),
                    };
                }
            }
        }
    }

    fn end(&mut self, error: StoreError) -> Option<Result<Change, StoreError>> {
        self.over = true;
        Some(Err(error))
    }
}

fn broken(last: String) -> StoreError {
    StoreError::Unreachable { what: "a watch", members: 1, last }
}

fn change(words: &Words, event: Event) -> Option<Change> {
    let deleted = event.r#type() == event::EventType::Delete;
    let kv = event.kv?;
    let (key, revision) = (words.ours(&kv.key)?, unsigned(kv.mod_revision));
    let now = (!deleted).then(|| words::versioned(kv));
    Some(Change { key, revision, now })
}
