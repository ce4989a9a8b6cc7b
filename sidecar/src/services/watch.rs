//! What is said over the line to a controller about services, kept as long as anything is watched.
//! Called by `app`.
//!
//! Never: connects while nobody asks; loses all services for one that cannot be read.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt;
use myelin_identity::services::{ServiceAnswer, proto};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::ServiceDesk;
use crate::addr::Endpoint;
use crate::controller::{Broken, CONNECT_WITHIN, LONGEST_SPREAD, Line, Pace};

/// Largest answer: a thousand endpoints of fifty bytes, with much room.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Generated client of `myelin.services.v1.Services`; the messages are those of `myelin-identity`.
mod stub {
    #![allow(clippy::all, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]
    tonic::include_proto!("myelin.services.v1");
}

/// All that the watch stands on.
pub struct Watch {
    pub line: Line,
    pub desk: Arc<ServiceDesk>,
}

impl Watch {
    /// Runs until the process ends.
    pub async fn run(self) -> Infallible {
        let mut pace = Pace::default();
        loop {
            if !self.desk.is_needed() {
                self.desk.wanted().await;
                continue;
            }
            let controller = pace.controller(&self.line.config);
            let mut heard = false;
            let Err(broken) = self.session(controller, &mut heard).await else {
                // Our SVID was renewed: the next connection proves the new one.
                self.desk.resting();
                continue;
            };
            if heard {
                self.desk.resting();
            } else {
                self.desk.down();
            }
            tracing::warn!(%controller, "services are as they were last known: {broken}");
            pace.pause(heard, LONGEST_SPREAD, self.desk.wanted()).await;
        }
    }

    /// One connection to its end. `Ok`: another SVID is in use, and this one goes.
    async fn session(&self, controller: Endpoint, heard: &mut bool) -> Result<(), Broken> {
        let mut call = self.line.call(controller).await?;
        let mut stub = stub::services_client::ServicesClient::new(call.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let (first, later) = self.desk.up();
        let questions = futures_util::stream::iter(first)
            .chain(ReceiverStream::new(later))
            .map(proto::ServiceQuestion::from);
        let opened = timeout(CONNECT_WITHIN, stub.watch_services(questions)).await;
        let mut answers = opened.map_err(|_| Broken::Slow)??.into_inner();
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or(Broken::Closed)?;
                    // One service that somebody wrote amiss is no reason to lose all others.
                    match ServiceAnswer::try_from(answer) {
                        Ok(answer) => self.desk.answered(answer),
                        Err(why) => tracing::warn!(%why, "an answer of the controller is not taken"),
                    }
                    *heard = true;
                }
                over = self.line.over(&mut call) => return over,
            }
        }
    }
}
