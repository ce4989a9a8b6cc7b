//! What is said over the line to a controller about policies: asked as soon as we have an identity,
//! watched from then on. Called by `app`.
//!
//! Never: takes an answer in part; gives up.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::policy::{MAX_POLICY_BYTES, PolicyAnswer, PolicyQuestion, proto};
use tokio::time::timeout;

use super::PolicyDesk;
use crate::addr::Endpoint;
use crate::controller::{Broken, CONNECT_WITHIN, LONGEST_SPREAD, Line, Pace};
use crate::metrics::{Metrics, PolicyUpdate};

/// Largest answer: a policy, its version, and the framing of both.
const MAX_ANSWER_BYTES: usize = MAX_POLICY_BYTES + 1024;

/// While nobody may enter, controllers are tried again within this.
const PENDING_SPREAD: Duration = Duration::from_secs(2);

/// Generated client of `myelin.policy.v1.Policies`; the messages are those of `myelin-identity`.
mod stub {
    #![allow(clippy::all, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]
    tonic::include_proto!("myelin.policy.v1");
}

/// All that the watch stands on.
pub struct Watch {
    pub line: Line,
    pub desk: Arc<PolicyDesk>,
    pub metrics: Arc<Metrics>,
}

impl Watch {
    /// Runs until the process ends.
    pub async fn run(self) -> Infallible {
        self.identified().await;
        let mut pace = Pace::default();
        loop {
            let controller = pace.controller(&self.line.config);
            let mut heard = false;
            let ended = self.session(controller, &mut heard).await;
            self.desk.connected(false);
            // Our SVID was renewed: the next connection proves the new one.
            let Err(broken) = ended else { continue };
            let most = if self.desk.known().is_some() {
                tracing::warn!(%controller, "policy stays as it was last known: {broken}");
                LONGEST_SPREAD
            } else {
                tracing::warn!(%controller, "nobody enters until a controller answers: {broken}");
                PENDING_SPREAD
            };
            pace.pause(heard, most, std::future::pending()).await;
        }
    }

    /// Whoever has no SVID yet has nothing to prove himself by.
    async fn identified(&self) {
        let mut published = self.line.store.subscribe();
        while self.line.store.load().is_none() {
            if published.changed().await.is_err() {
                // The store ends with the process.
                std::future::pending::<()>().await;
            }
        }
    }

    /// One connection to its end. `Ok`: another SVID is in use, and this one goes.
    async fn session(&self, controller: Endpoint, heard: &mut bool) -> Result<(), Broken> {
        let mut call = self.line.call(controller).await?;
        let mut stub = stub::policies_client::PoliciesClient::new(call.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let question = proto::PolicyQuestion::from(PolicyQuestion { known: self.desk.known() });
        let first = timeout(CONNECT_WITHIN, async {
            let mut answers = stub.watch_policy(question).await?.into_inner();
            let first = answers.message().await?.ok_or(Broken::Closed)?;
            Ok::<_, Broken>((first, answers))
        });
        // A controller that never answers is no better than none.
        let (first, mut answers) = first.await.map_err(|_| Broken::Slow)??;
        self.take(first, heard)?;
        loop {
            tokio::select! {
                answer = answers.message() => self.take(answer?.ok_or(Broken::Closed)?, heard)?,
                over = self.line.over(&mut call) => return over,
            }
        }
    }

    /// Whole or not at all; whoever says what cannot be taken is left for the next controller.
    fn take(&self, answer: proto::PolicyAnswer, heard: &mut bool) -> Result<(), Broken> {
        let taken = PolicyAnswer::try_from(answer)
            .map_err(|why| why.to_string())
            .and_then(|answer| self.desk.take(answer).map_err(|why| why.to_string()));
        match taken {
            Ok(()) => {
                *heard = true;
                self.desk.connected(true);
                Ok(())
            }
            Err(why) => {
                self.metrics.policies().update(PolicyUpdate::Refused);
                Err(Broken::Refused(why))
            }
        }
    }
}
