//! The members of the cluster, and how a question finds one that answers: the one that answered
//! last, then the others in turn, with a deadline for each and one for all.
//!
//! Never: asks without a deadline, or for longer than [`ANSWER_WITHIN`] in all.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::connect::{self, ClientTls};
use super::endpoint::EtcdEndpoint;
use super::refusal::{Failure, judge};
use super::stubs::kv_client::KvClient;
use super::stubs::lease_client::LeaseClient;
use super::stubs::watch_client::WatchClient;
use crate::store::StoreError;

/// One member's time to answer. Elections last one to two seconds by default; a member that is slow
/// for other reasons is better left alone.
const MEMBER_WITHIN: Duration = Duration::from_millis(1500);
/// All members together: an election, and two more tries. A caller of `Issue` waits no longer than
/// ten.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two rounds through the members; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Largest answer that is read: a page of 1,024 records of a kilobyte each, and as much as 50 full
/// deny lists.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[derive(Clone)]
pub(super) struct Cluster {
    members: Arc<[Member]>,
    /// Who answered last.
    preferred: Arc<AtomicUsize>,
}

/// One member, ready to be asked.
#[derive(Clone)]
pub(super) struct Member {
    name: String,
    channel: Channel,
}

/// An answer, and whether an earlier try, whose answer was lost, may have happened too.
pub(super) struct Answered<T> {
    pub(super) answer: T,
    pub(super) unsure: bool,
}

impl Member {
    pub(super) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(super) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

/// A request that a member without a leader refuses at once, instead of keeping us waiting. Streams
/// that are open when it loses its leader end as well.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
    request
}

impl Cluster {
    pub(super) fn new(
        endpoints: &[EtcdEndpoint],
        tls: Option<&ClientTls>,
    ) -> Result<Self, StoreError> {
        let members: Result<Vec<_>, StoreError> = endpoints
            .iter()
            .map(|endpoint| {
                let channel = connect::channel(endpoint, tls)?;
                Ok(Member { name: endpoint.to_string(), channel })
            })
            .collect();
        let members: Arc<[Member]> = members?.into();
        if members.is_empty() {
            return Err(StoreError::Refused("no endpoint was named".to_owned()));
        }
        Ok(Self { members, preferred: Arc::default() })
    }

    /// Asks members until one answers.
    pub(super) async fn ask<T, F>(
        &self,
        what: &'static str,
        call: impl Fn(Member) -> F,
    ) -> Result<Answered<T>, StoreError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut wait = FIRST_WAIT;
        let mut turn = 0;
        loop {
            let at = (first + turn) % self.members.len();
            let member = &self.members[at];
            let within = MEMBER_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
            let said = match timeout(within, call(member.clone())).await {
                Ok(Ok(response)) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(Answered { answer: response.into_inner(), unsure: turn > 0 });
                }
                Ok(Err(status)) => match judge(&status) {
                    Failure::Final(error) => return Err(error),
                    Failure::Elsewhere(said) => said,
                },
                Err(_) => format!("no answer within {within:?}"),
            };
            tracing::debug!(what, member = %member.name, said, "etcd member passed over");
            turn += 1;
            if turn % self.members.len() == 0 {
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            if Instant::now() >= deadline {
                let (members, last) = (self.members.len(), format!("{}: {said}", member.name));
                return Err(StoreError::Unreachable { what, members, last });
            }
        }
    }
}
