//! One stream to one caller: what is offered now, and each other offer after it, until it is
//! withdrawn or the caller leaves. Called by both services.
//!
//! Never: says the same twice, queues for a caller that does not read, outlives its place.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::caller::Caller;
use super::offer::{Offer, Sources, Version};
use super::seldom::Seldom;
use crate::metrics::{Metrics, WorkloadCall};

/// Streams at once, over all connections: as many as some processes with two or three each.
const MAX_STREAMS: usize = 256;
/// Answers that wait for one slow reader; the next is made when it has read.
pub(super) const ANSWERS_QUEUED: usize = 1;
/// How often an offer is looked at again although nothing was heard: an SVID ends by the clock.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub(super) type Answers<T> = ReceiverStream<Result<T, Status>>;

/// What both services share.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) sources: Sources,
    pub(super) metrics: Arc<Metrics>,
    pub(super) said: Arc<SaidSeldom>,
    places: Arc<Semaphore>,
}

/// What callers can make us log.
#[derive(Default)]
pub(super) struct SaidSeldom {
    served: Seldom,
    pub(super) complaints: Seldom,
    pub(super) strangers: Seldom,
}

/// A running stream: counted while it lives.
pub(super) struct Place {
    /// Whose it is.
    pub(super) uid: u32,
    metrics: Arc<Metrics>,
    call: WorkloadCall,
    _permit: OwnedSemaphorePermit,
}

impl Desk {
    pub(super) fn new(sources: Sources, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(MAX_STREAMS));
        Self { sources, metrics, said: Arc::default(), places }
    }

    /// Lets a caller in, or says why not.
    pub(super) fn admit<T>(
        &self,
        call: WorkloadCall,
        request: &Request<T>,
    ) -> Result<Place, Status> {
        let admitted = Caller::admitted(request).and_then(|caller| {
            let permit = Arc::clone(&self.places).try_acquire_owned();
            let permit = permit.map_err(|_| {
                Status::resource_exhausted("too many streams on this socket; close some")
            })?;
            Ok((caller, permit))
        });
        let (caller, permit) = admitted.inspect_err(|status| self.refused(call, status))?;
        if let Some(left_out) = self.said.served.now(caller.uid) {
            tracing::info!(
                uid = caller.uid,
                gid = caller.gid,
                pid = caller.pid,
                call = call.word(),
                left_out,
                "workload API: a caller is served"
            );
        }
        self.metrics.workload_streams(call, 1);
        let metrics = Arc::clone(&self.metrics);
        Ok(Place { uid: caller.uid, metrics, call, _permit: permit })
    }

    pub(super) fn refused(&self, call: WorkloadCall, status: &Status) {
        self.metrics.workload_answer(call, word(status));
    }

    /// Answers from now on, whenever `say` has something to say about an offer of another version.
    pub(super) fn answers<T: Send + 'static>(
        &self,
        place: Place,
        version: impl Fn(&Offer) -> Version + Send + 'static,
        say: impl Fn(&Offer) -> T + Send + 'static,
    ) -> Answers<T> {
        let (sender, answers) = mpsc::channel(ANSWERS_QUEUED);
        let desk = self.clone();
        tokio::spawn(async move {
            let mut changes = desk.sources.changes();
            let mut told = None;
            loop {
                let news = desk.news(&mut told, &version);
                let over = news.is_err();
                let answer = match news {
                    Ok(None) => None,
                    Ok(Some(offer)) => Some(Ok(say(&offer))),
                    Err(status) => Some(Err(status)),
                };
                if let Some(answer) = answer {
                    let outcome = answer.as_ref().err().map_or("served", word);
                    desk.metrics.workload_answer(place.call, outcome);
                    if sender.send(answer).await.is_err() || over {
                        return;
                    }
                }
                tokio::select! {
                    () = changes.next() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = sender.closed() => return,
                }
            }
        });
        ReceiverStream::new(answers)
    }

    /// The offer of this moment if it is another than `told`.
    pub(super) fn news(
        &self,
        told: &mut Option<Version>,
        version: impl Fn(&Offer) -> Version,
    ) -> Result<Option<Offer>, Status> {
        let Some(offer) = self.sources.offer()? else { return Ok(None) };
        let now = Some(version(&offer));
        if *told == now {
            return Ok(None);
        }
        *told = now;
        Ok(Some(offer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.workload_streams(self.call, -1);
    }
}

/// One word of a closed set for how a request was answered.
pub(super) fn word(status: &Status) -> &'static str {
    use tonic::Code;
    match status.code() {
        Code::PermissionDenied => "permission_denied",
        Code::InvalidArgument => "invalid_argument",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::Unimplemented => "unimplemented",
        _ => "failed",
    }
}
