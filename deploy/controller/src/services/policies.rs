//! The same port's other service: what a sidecar is told of the policies of its workload; and what the
//! room that compiles them hears of Services and Pods. Called by `serve` and the room's door.
//!
//! Never: asks the caller who it is (its certificate says so), compiles a policy.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::policy::{PolicyQuestion, PolicyVersion, proto};
use myelin_identity::verify::{Peer, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::DEFAULT_ACCOUNT;
use super::connection::{Caller, Use};
use super::objects::{Pod, Service, address};
use super::serve::Api;
use super::stubs::policy::policies_server;
use crate::cluster::News;
use crate::policies::{self, Following, Policies};

pub(super) use crate::policies::keep;

/// Answers that wait for one slow sidecar: what changes meanwhile is told once, as it is then.
const ANSWERS_BUFFERED: usize = 1;

/// Phases of pods that have ended: their addresses may be others'.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

#[tonic::async_trait]
impl policies_server::Policies for Api {
    type WatchPolicyStream = ReceiverStream<Result<proto::PolicyAnswer, Status>>;

    async fn watch_policy(
        &self,
        request: Request<proto::PolicyQuestion>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("the connection was not authenticated"));
        };
        let policies = self.policies.as_ref().filter(|policies| policies.is_complete());
        let Some(policies) = policies else {
            return Err(Status::unavailable("this controller has not read the policies yet"));
        };
        let question = PolicyQuestion::try_from(request.into_inner());
        let question = question.map_err(|why| Status::invalid_argument(why.to_string()))?;
        let following = Policies::follow(policies, &caller.peer.id, &caller.peer.ip_sans);
        let (sender, answers) = mpsc::channel(ANSWERS_BUFFERED);
        let api = self.clone();
        tokio::spawn(async move {
            let lasts = caller.begin();
            api.metrics.policy_streams(1);
            let with = (&*caller.peer, &lasts);
            if let Err(status) = api.tell(with, question.known, &following, &sender).await {
                // The caller may be gone.
                let _ = sender.send(Err(status)).await;
            }
            api.metrics.policy_streams(-1);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl Api {
    async fn tell(
        &self,
        (peer, lasts): (&Peer, &Use),
        known: Option<PolicyVersion>,
        following: &Following,
        sender: &mpsc::Sender<Result<proto::PolicyAnswer, Status>>,
    ) -> Result<(), Status> {
        let (mut told, mut is_news) = (None, true);
        loop {
            tokio::select! {
                () = following.woken() => is_news = true,
                permit = sender.reserve(), if is_news => match permit {
                    Ok(permit) => {
                        is_news = false;
                        let now = following.now();
                        if told != Some(now.version()) {
                            // What it held counts for the first answer alone: then it is what we said.
                            let before = if told.is_none() { known } else { None };
                            told = Some(now.version());
                            self.metrics.policy_answer();
                            permit.send(Ok(now.answer(before)));
                        }
                    }
                    Err(_) => return Ok(()),
                },
                over = lasts.over() => return Err(over),
                () = sender.closed() => return Ok(()),
            }
            let denied = |refusal: Refusal| Status::permission_denied(refusal.to_string());
            self.judge(peer).map_err(denied)?;
        }
    }
}

/// What selects pods.
pub(super) fn services(news: &News<Service>) -> News<policies::Service> {
    told(news, |service| policies::Service {
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        selector: service.spec.selector.clone(),
    })
}

/// Who a pod is, where, and by which labels it is selected.
pub(super) fn pods(news: &News<Pod>) -> News<policies::Pod> {
    told(news, |pod| {
        // A pod in its node's network has that node's address, at which others live as well.
        let is_there = !pod.spec.host_network && !ENDED.contains(&pod.status.phase.as_str());
        let addresses = pod.status.pod_ips.iter().filter_map(|it| address(&it.ip));
        policies::Pod {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            account: match pod.spec.service_account_name.as_str() {
                "" => DEFAULT_ACCOUNT.to_owned(),
                named => named.to_owned(),
            },
            labels: pod.metadata.labels.clone(),
            addresses: if is_there { addresses.collect() } else { Vec::new() },
        }
    })
}

fn told<T, U>(news: &News<T>, as_told: impl Fn(&T) -> U) -> News<U> {
    match news {
        News::All(all) => News::All(all.iter().map(as_told).collect()),
        News::Now(it) => News::Now(as_told(it)),
        News::Gone(meta) => News::Gone(meta.clone()),
    }
}
