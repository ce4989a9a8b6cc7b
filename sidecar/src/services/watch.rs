//! The connection to a controller: mutual TLS 1.3 under our SVID, gRPC on top, kept as long as
//! anything is watched. Called by `app`.
//!
//! Never: says a word before the other end has proved to be exactly the controller; comes back at
//! once with everybody else when a controller went away.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use myelin_identity::UnixTime;
use myelin_identity::services::{ServiceAnswer, proto};
use myelin_identity::verify::{Expected, Peer, Refusal, Role};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;

use super::{Config, ServiceDesk};
use crate::addr::{Clock, Endpoint};
use crate::credentials::{NoIdentity, Snapshot, Store, channel_over};
use crate::net::{DialError, Dialer};

/// What gRPC speaks underneath.
pub const ALPN: &[u8] = b"h2";
/// Handshake and first words of a controller: two round trips across a continent and a busy minute.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// After a connection that was good, the next one begins somewhere within this: the sidecars of a
/// controller that went away come back one by one. Whoever needs an answer does not wait for it.
const SPREAD: Duration = Duration::from_secs(10);
/// After failures the spread doubles up to this, so that a controller that is back is found soon.
const LONGEST_SPREAD: Duration = Duration::from_secs(30);
/// Between two tries at the least, however urgent: after a good connection, and after a failed try.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
const LEAST_PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Largest answer: a thousand endpoints of fifty bytes, with much room.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Generated client of `myelin.services.v1.Services`; the messages are those of `myelin-identity`.
mod stub {
    #![allow(clippy::all, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]
    tonic::include_proto!("myelin.services.v1");
}

/// Why there is no connection to a controller, or no more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    NoIdentity(#[from] NoIdentity),
    #[error("the controller cannot be reached: {0}")]
    Dial(#[from] DialError),
    #[error("the controller did not finish its handshake within {CONNECT_WITHIN:?}")]
    Slow,
    #[error("whoever answers is not the controller, nothing was sent to it: {0}")]
    NotTheController(Refusal),
    #[error("TLS with the controller failed: {0}")]
    Tls(io::Error),
    #[error("HTTP/2 with the controller failed: {0}")]
    Http(#[from] tonic::transport::Error),
    #[error("the configuration that was read again names no controller; restart to take that over")]
    Undeclared,
    #[error("the controller ended the watch: {0}")]
    Status(#[from] tonic::Status),
    #[error("the controller closed the watch")]
    Closed,
}

/// All that the watch stands on.
pub struct Watch {
    pub config: Config,
    pub desk: Arc<ServiceDesk>,
    pub store: Arc<Store>,
    pub dialer: Dialer,
    pub clock: Clock,
}

impl Watch {
    /// Runs until the process ends.
    pub async fn run(self) -> Infallible {
        let (mut turn, mut spread) = (0_usize, SPREAD);
        loop {
            if !self.desk.is_needed() {
                self.desk.wanted().await;
                continue;
            }
            let controller = self.config.addresses[turn % self.config.addresses.len()];
            let mut heard = false;
            let Err(broken) = self.session(controller, &mut heard).await else {
                // Our SVID was renewed: the next connection proves the new one.
                self.desk.resting();
                continue;
            };
            turn = turn.wrapping_add(1);
            let least = if heard {
                spread = SPREAD;
                self.desk.resting();
                LEAST_PAUSE
            } else {
                self.desk.down();
                LEAST_PAUSE_AFTER_FAILURE
            };
            tracing::warn!(%controller, "services are as they were last known: {broken}");
            self.pause(spread, least).await;
            spread = (spread * 2).min(LONGEST_SPREAD);
        }
    }

    /// Somewhere within the spread, or as soon as somebody needs an answer.
    async fn pause(&self, spread: Duration, least: Duration) {
        let until = Instant::now() + spread.mul_f64(f64::from(random()) / f64::from(u16::MAX));
        sleep(least).await;
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.desk.wanted() => {}
        }
    }

    /// One connection to its end. `Ok`: another SVID is in use, and this one goes.
    async fn session(&self, controller: Endpoint, heard: &mut bool) -> Result<(), Broken> {
        let snapshot = self.store.usable(self.clock.unix())?;
        let connected = timeout(CONNECT_WITHIN, self.connect(controller, &snapshot));
        let (channel, peer) = connected.await.map_err(|_| Broken::Slow)??;
        let mut stub = stub::services_client::ServicesClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let (first, later) = self.desk.up();
        let questions = futures_util::stream::iter(first)
            .chain(ReceiverStream::new(later))
            .map(proto::ServiceQuestion::from);
        let opened = timeout(CONNECT_WITHIN, stub.watch_services(questions)).await;
        let mut answers = opened.map_err(|_| Broken::Slow)??.into_inner();
        let mut published = self.store.subscribe();
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
                _ = published.changed() => {
                    let Some(now) = self.store.load() else { continue };
                    if now.svid.serial() != snapshot.svid.serial() {
                        return Ok(());
                    }
                    // Trust is judged at every use, and this one lasts for days.
                    self.still_trusted(&peer, &now).map_err(Broken::NotTheController)?;
                }
            }
        }
    }

    async fn connect(
        &self,
        controller: Endpoint,
        snapshot: &Snapshot,
    ) -> Result<(tonic::transport::Channel, Arc<Peer>), Broken> {
        let tcp = self.dialer.dial(controller).await?;
        let config = snapshot.tls.dial_plain(Some(ALPN)).ok_or(Broken::Undeclared)?;
        let name = ServerName::from(controller.ip());
        let shaking = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await;
        let tls = shaking.map_err(|source| match Refusal::of_io(&source) {
            Some(refusal) => Broken::NotTheController(refusal),
            None => Broken::Tls(source),
        })?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let verified = snapshot.tls.peer(chain, Role::Server);
        let peer = verified.map_err(Broken::NotTheController)?;
        let expected = Expected { ids: vec![self.config.id.clone()], address: None };
        expected.check(&peer).map_err(Broken::NotTheController)?;
        self.still_trusted(&peer, snapshot).map_err(Broken::NotTheController)?;
        Ok((channel_over(tls, "http://myelin-controller").await?, peer))
    }

    fn still_trusted(&self, peer: &Peer, snapshot: &Snapshot) -> Result<(), Refusal> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.clock.unix()));
        peer.still_trusted(&snapshot.bundle, &snapshot.deny, now)
    }
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness there is no spread; everything that needs it for safety fails by itself.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}
