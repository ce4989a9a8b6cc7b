//! Through the mesh: dial, handshake, compare who answered with whom was meant, then one use of
//! the connection. Called by `serve` when the directory named a target.
//!
//! Never: plaintext when any of it fails; a replay of a use that the acceptor may have taken.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::verify::{Peer, Refusal};
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::{Outbound, cut};
use crate::credentials::Snapshot;
use crate::directory::{Protocol, Target};
use crate::drain::Closing;
use crate::metrics::Security;
use crate::net::reset;
use crate::relay::{self, Bare, Carrier, Ending, Limits, Link, LinkError, Said};
use crate::report::{Outcome, Report};
use crate::tls::{self, Deadline, Facts, Offer, Session};
use crate::wire::{Budget, Dialer};

/// The proof that our leaf is in the issuance log; empty until a log is kept.
const NO_PROOF: &[u8] = &[];

/// A mesh connection carries one use until connections are pooled.
const ONE_USE: Budget =
    Budget { max_uses: std::num::NonZeroU64::MIN, max_bytes: std::num::NonZeroU64::MAX };

impl Outbound {
    pub(super) async fn through_mesh(
        &self,
        workload: TcpStream,
        target: &Target,
        mut report: Report,
    ) {
        report.security(match target.protocol {
            Protocol::Myelin1 => Security::Mesh,
            Protocol::PlainMtls { .. } => Security::PlainMtls,
        });
        let session = match self.reach(target, &mut report).await {
            Ok(session) => session,
            Err(outcome) => return cut(workload, report, outcome),
        };
        report.peer(&session.peer.id);
        let Session { records, peer, .. } = session;
        match target.protocol {
            Protocol::Myelin1 => {
                let mut link = Link::new(records, Dialer::new(ONE_USE));
                if let Err(error) = self.open(&mut link).await {
                    reset(link.into_records().into_tcp());
                    report.detail(&error);
                    return cut(workload, report, Outcome::from(&error));
                }
                let answer = Some(self.config.answer);
                let outcome = self.relay(&mut link, &workload, &peer, target, answer, &mut report);
                let outcome = outcome.await;
                self.part(workload, outcome, report);
                match outcome {
                    Outcome::Completed | Outcome::RefusedByPeer(_) | Outcome::HandedBack => {
                        link.close(self.config.handshake).await;
                    }
                    _ => reset(link.into_records().into_tcp()),
                }
            }
            Protocol::PlainMtls { .. } => {
                let mut bare = Bare::new(records);
                let outcome =
                    self.relay(&mut bare, &workload, &peer, target, None, &mut report).await;
                self.part(workload, outcome, report);
                if outcome != Outcome::Completed {
                    reset(bare.into_records().into_tcp());
                }
            }
        }
    }

    /// A session with exactly whom was meant.
    async fn reach(&self, target: &Target, report: &mut Report) -> Result<Session, Outcome> {
        let snapshot = self.store.usable(self.clock.unix()).map_err(|none| {
            report.detail(&none);
            Outcome::NoIdentity(none.word())
        })?;
        let tcp = self.dialer.dial(target.endpoint).await.map_err(|error| {
            let outcome = Outcome::from(&error);
            report.detail(error);
            outcome
        })?;
        let offer = match &target.protocol {
            Protocol::Myelin1 => Offer::Myelin1,
            Protocol::PlainMtls { alpn } => Offer::Plain { alpn: alpn.as_deref() },
        };
        let began = Instant::now();
        let deadline = Deadline(self.config.handshake);
        let dialled = tls::dial(tcp, target.endpoint, offer, &snapshot.tls, deadline).await;
        let session = dialled.map_err(|error| {
            let outcome = Outcome::from(&error);
            report.handshake(outcome.word(), Facts::NONE, began);
            report.detail(error);
            outcome
        })?;
        if let Err(refusal) = self.is_meant(&session.peer, target, &snapshot) {
            reset(session.records.into_tcp());
            report.handshake(refusal.word(), session.facts, began);
            report.peer(&session.peer.id);
            report.detail(&refusal);
            return Err(Outcome::PeerRefused(refusal.word()));
        }
        report.handshake("ok", session.facts, began);
        Ok(session)
    }

    fn is_meant(
        &self,
        peer: &Peer,
        target: &Target,
        snapshot: &Arc<Snapshot>,
    ) -> Result<(), Refusal> {
        target.expected.check(peer)?;
        peer.still_trusted(&snapshot.bundle, &snapshot.deny, at(self.clock.unix()))
    }

    async fn open(&self, link: &mut Link<Dialer>) -> Result<(), LinkError> {
        link.greet(NO_PROOF, self.config.handshake, |_proof| ()).await?;
        link.control(Dialer::open).map(|_| ())
    }

    async fn relay<C: Carrier>(
        &self,
        carrier: &mut C,
        workload: &TcpStream,
        peer: &Peer,
        target: &Target,
        answer: Option<Duration>,
        report: &mut Report,
    ) -> Outcome {
        let limits = Limits { idle: self.config.idle, answer };
        let meter = report.bytes();
        let withdrawn = self.withdrawn(peer, target);
        let ending: Ending<(Outcome, String)> =
            relay::run(carrier, workload, &meter, limits, Said::default(), withdrawn).await;
        report.ending(&ending)
    }

    fn part(&self, workload: TcpStream, outcome: Outcome, report: Report) {
        if outcome == Outcome::Completed {
            drop(workload);
        } else {
            reset(workload);
        }
        report.finish(outcome);
    }

    /// Returns when a running use must end: trust or binding was withdrawn, the peer's SVID
    /// expired too long ago, or our grace is over.
    async fn withdrawn(&self, peer: &Peer, target: &Target) -> (Outcome, String) {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let left = peer.path_not_after.saturating_sub(self.clock.unix());
        let last_moment = Instant::now() + Duration::from_secs(left) + self.config.use_after_expiry;
        loop {
            if let Err(why) = self.still_meant(peer, target) {
                return (Outcome::Withdrawn, why);
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        self.door.closed(Closing::Cut).await;
                        return (Outcome::Drained, String::new());
                    }
                }
                () = sleep_until(last_moment) => {
                    return (Outcome::Withdrawn, "the peer's SVID expired too long ago".to_owned());
                }
                () = self.door.closed(Closing::Cut) => return (Outcome::Drained, String::new()),
            }
        }
    }

    /// Expiry alone does not end a running use, so it is judged as of the last valid second.
    fn still_meant(&self, peer: &Peer, target: &Target) -> Result<(), String> {
        let Some(snapshot) = self.store.load() else { return Ok(()) };
        let now = self.clock.unix().min(peer.path_not_after);
        peer.still_trusted(&snapshot.bundle, &snapshot.deny, at(now))
            .and_then(|()| target.expected.check(peer))
            .map_err(|refusal| refusal.to_string())
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
