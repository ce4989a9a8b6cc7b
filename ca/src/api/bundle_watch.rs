//! `WatchBundle`: the latest statement at once, every later one as it is said, heartbeats included.
//!
//! Never: queues old statements for a slow watcher; it gets the newest when it reads again.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::issuance::{BundleUpdate, proto};
use myelin_identity::verify::Peer;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, WATCH_BUFFER, lean, stopped};
use crate::authority::{HEARTBEAT, Heard, Statement};

pub(super) type Updates = lean::Told<proto::BundleUpdate>;

impl Api {
    pub(super) fn answer_watch_bundle(
        &self,
        request: Request<Streaming<proto::BundleAck>>,
    ) -> Result<Response<Updates>, Status> {
        let peer = self.peer(&request)?;
        let permit = self.bundle_watches.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            Status::resource_exhausted("too many watches on this CA; try another replica")
        })?;
        let (sender, updates) = lean::channel(WATCH_BUFFER);
        tokio::spawn(self.clone().tell_bundle(peer, request.into_inner(), sender, permit));
        Ok(Response::new(updates))
    }

    async fn tell_bundle(
        self,
        peer: Peer,
        acks: Streaming<proto::BundleAck>,
        sender: lean::Sender<proto::BundleUpdate>,
        _permit: OwnedSemaphorePermit,
    ) {
        let _counted =
            super::counted::Counted::new(self.metrics.watches.with_label_values(&["bundle"]));
        let mut statements = self.authority.statements();
        tokio::select! {
            () = self.send_statements(&peer, &mut statements, &sender) => {}
            () = self.hear_acks(&peer, acks) => {}
            () = sender.closed() => {}
            () = stopped(self.stopping.clone()) => {}
        }
    }

    /// Root rotation waits for these. A watcher that only listens is fine: the future then never
    /// ends.
    async fn hear_acks(&self, peer: &Peer, mut acks: Streaming<proto::BundleAck>) {
        let mut lied = false;
        while let Some(ack) = acks.next().await {
            let Ok(ack) = ack else { return };
            let heard = self.authority.acknowledge(peer, ack.into());
            self.metrics.ladder.acks.with_label_values(&[heard.word()]).inc();
            if heard == Heard::NoSuchGeneration && !lied {
                // Once a stream: a liar must not fill the log.
                lied = true;
                tracing::warn!(
                    target: "audit", outcome = "ack_ignored", id = %peer.id, serial = %peer.serial,
                    generation = ack.generation, "a bundle generation was acknowledged that does not exist"
                );
            }
        }
        std::future::pending().await
    }

    /// Ends when the watcher is no longer trusted.
    async fn send_statements(
        &self,
        peer: &Peer,
        statements: &mut watch::Receiver<Option<Arc<Statement>>>,
        sender: &lean::Sender<proto::BundleUpdate>,
    ) {
        statements.mark_changed();
        let mut told = None;
        while statements.changed().await.is_ok() {
            if let Err(refused) = self.judge(peer) {
                let _ = sender.send(Box::new(Err(refused))).await;
                // The acks are dropped only when the status has left: a reset would overtake it.
                sender.closed().await;
                return;
            }
            let said = statements.borrow_and_update().clone();
            let Some(statement) = said else { continue };
            if sender.send(Box::new(Ok(update(&statement, told)))).await.is_err() {
                return;
            }
            told = Some(statement.foreign.epoch());
        }
    }
}

/// Foreign bundles go once for each epoch; `told` is the last one on this stream.
fn update(statement: &Statement, told: Option<u64>) -> proto::BundleUpdate {
    let news = told != Some(statement.foreign.epoch());
    (&BundleUpdate {
        bundle: Some((*statement.bundle).clone()),
        deny_list: Some(statement.denied.clone()),
        foreign: news.then(|| (*statement.foreign).clone()),
        heartbeat_seconds: HEARTBEAT.as_secs(),
    })
        .into()
}
