//! Through the mesh: a connection from the pool or a new one, one use of it, and back to the pool.
//! Called by `serve` when the directory named a target.
//!
//! Never: plaintext when any of it fails; a replay of a use that the acceptor may have taken.

// SPDX-License-Identifier: Apache-2.0

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use myelin_identity::verify::Peer;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::pool::{self, Connection};
use super::reach::{Blame, Unreached, at};
use super::{Call, Outbound, cut};
use crate::directory::Target;
use crate::drain::{Closing, Place};
use crate::metrics::{Direction, MeshUse, Retired};
use crate::net::reset;
use crate::proofs::Standing;
use crate::relay::{self, Bare, Ending, Limits, LinkError, Said};
use crate::report::{Outcome, Report};
use crate::tls::Session;
use crate::wire::Dialer;

/// How often a connection is sought for one use: in the pool, a new one when the acceptor handed the
/// use back or is not there, and once more if the next one's credentials changed right then.
const MOST_OPENS: u32 = 3;

/// How a use of ours ended.
type Ended = Ending<(Outcome, String)>;

/// A use that is over, and the connection that it had.
pub(super) struct Used {
    held: Connection,
    kind: MeshUse,
    ending: Ended,
}

impl Outbound {
    /// One use, on the first connection that takes it.
    pub(super) async fn one_use(self: &Rc<Self>, call: &mut Call) -> Result<Used, Unreached> {
        let (mut said, mut from_pool, mut tries) = (Said::default(), true, 1);
        loop {
            let (mut held, kind) = match self.connection(&call.target, from_pool).await {
                Ok(found) => found,
                Err(why) if why.blame == Blame::Us => return Err(why),
                // Nobody has heard of this use yet.
                Err(why) => {
                    self.unreached(call);
                    passed_over(call, &why);
                    match self.elsewhere(call, tries).filter(|_| tries < MOST_OPENS) {
                        Some(other) => (call.target, call.running) = other,
                        None => return Err(why),
                    }
                    tries += 1;
                    continue;
                }
            };
            call.report.peer(&held.peer.id);
            // Not flushed: what the workload has said already leaves in the same segment.
            if let Err(error) = held.link.control(Dialer::open) {
                reset(held.link.into_records().into_tcp());
                return Err(Unreached::from(&error));
            }
            self.metrics.mesh_use(kind);
            match self.relay_mesh(&mut held, call, said).await {
                // It was never taken, so it is opened again, with what the workload has said.
                Ending::HandedBack(back) if tries < MOST_OPENS => {
                    // What one recycled connection said, the next may say as well; a new one cannot.
                    (said, from_pool) = (back, false);
                    self.metrics.mesh_retired(Retired::Peer);
                    held.link.part();
                    if let Some(other) = self.elsewhere(call, tries) {
                        (call.target, call.running) = other;
                    }
                    tries += 1;
                }
                ending => return Ok(Used { held, kind, ending }),
            }
        }
    }

    async fn relay_mesh(&self, held: &mut Connection, call: &Call, said: Said) -> Ended {
        let Call { workload, target, report, .. } = call;
        let limits =
            Limits { idle: self.config.idle, answer: Some(self.config.answer), linger: None };
        let withdrawn = pin!(self.withdrawn(&held.peer, &held.standing, target));
        relay::run(&mut held.link, workload, &report.bytes(), limits, said, withdrawn).await
    }

    /// The workload learns how it ended; what is left then is the connection.
    pub(super) async fn end(&self, mut call: Call, used: Used) {
        let outcome = call.report.ending(&used.ending);
        match outcome {
            // Whatever was sent may have been read there: that use is not tried again, the next one is
            // tried elsewhere.
            Outcome::RefusedByPeer(_) => self.unreached(&call),
            _ => call.reached(),
        }
        // What follows is no use any more.
        let Call { workload, target, running: _, wanted, report } = call;
        part(workload, outcome, report);
        self.after_use(&target, used, wanted.place).await;
    }

    /// A connection on which this use may be opened, and where it comes from.
    async fn connection(
        self: &Rc<Self>,
        target: &Target,
        from_pool: bool,
    ) -> Result<(Connection, MeshUse), Unreached> {
        let unix = self.clock.unix();
        let snapshot = self.store.usable(unix)?;
        let taken = if from_pool { self.pool.take(target, &snapshot, unix) } else { None };
        let missing = self.pool.used(target);
        self.make_ready(target, missing);
        match taken {
            Some(found) => Ok(found),
            None => Ok((Box::pin(self.connect(target)).await?, MeshUse::New)),
        }
    }

    async fn after_use(&self, target: &Target, used: Used, place: Place) {
        let Used { held, kind, ending } = used;
        match ending {
            Ending::Completed => self.recycle(target, held, place).await,
            Ending::Refused(_) | Ending::HandedBack(_) => self.retire(held, Retired::Peer).await,
            broken => {
                reset(held.link.into_records().into_tcp());
                let lost = LinkError::is_lost;
                let is_lost = matches!(&broken, Ending::Broken(error) if lost(error));
                if is_lost && kind != MeshUse::New {
                    self.pool.purge(target.endpoint);
                }
            }
        }
    }

    async fn recycle(&self, target: &Target, mut held: Connection, place: Place) {
        let max_bytes = self.config.budget.max_bytes.get();
        if let Some(why) = pool::spent(&held, max_bytes) {
            return self.retire(held, why).await;
        }
        if self.door.is_leaving() {
            return self.retire(held, Retired::Drain).await;
        }
        let Some(rest) = self.door.rest() else {
            return self.retire(held, Retired::Surplus).await;
        };
        // From here on the connection holds nobody up but the drain.
        drop(place);
        match held.link.settle(self.config.handshake).await {
            Ok(true) => self.pool.put(target.endpoint, held, rest),
            Ok(false) => self.retire(held, Retired::Peer).await,
            Err(_) => {
                self.metrics.mesh_retired(Retired::Peer);
                reset(held.link.into_records().into_tcp());
            }
        }
    }

    async fn retire(&self, mut held: Connection, why: Retired) {
        self.metrics.mesh_retired(why);
        held.link.close(self.config.handshake).await;
    }

    pub(super) async fn plain_mtls(&self, workload: TcpStream, target: &Target, report: Report) {
        let mut report = report;
        let (session, snapshot) = match self.reach(target).await {
            Ok(reached) => reached,
            Err(why) => return unreached(workload, report, why),
        };
        report.peer(&session.peer.id);
        let Session { records, peer, .. } = session;
        let (trust, declared) = (snapshot.trust.view(), target.is_declared);
        let standing = match self.judge.plain_mtls(trust, &*peer, declared, Direction::Outbound) {
            Ok(standing) => standing,
            Err(why) => {
                reset(records.into_tcp());
                report.detail(&why);
                cut(workload, report, Outcome::from(&why));
                return;
            }
        };
        let mut bare = Bare::new(records);
        let limits = Limits { idle: self.config.idle, answer: None, linger: None };
        let withdrawn = pin!(self.withdrawn(&peer, &standing, target));
        let (meter, unsaid) = (report.bytes(), Said::default());
        let ending = relay::run(&mut bare, &workload, &meter, limits, unsaid, withdrawn).await;
        let outcome = report.ending(&ending);
        part(workload, outcome, report);
        if outcome != Outcome::Completed {
            reset(bare.into_records().into_tcp());
        }
    }

    /// Returns when a running use must end: trust or binding was withdrawn, the peer's SVID
    /// expired too long ago, or our grace is over.
    async fn withdrawn(
        &self,
        peer: &Peer,
        standing: &Standing,
        target: &Target,
    ) -> (Outcome, String) {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let left = peer.path_not_after.saturating_sub(self.clock.unix());
        let last_moment = Instant::now() + Duration::from_secs(left) + self.config.use_after_expiry;
        loop {
            if let Err(why) = self.still_meant(peer, standing, target) {
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
    fn still_meant(&self, peer: &Peer, standing: &Standing, target: &Target) -> Result<(), String> {
        let Some(snapshot) = self.store.load() else { return Ok(()) };
        let still_logged = self.judge.still(snapshot.trust.view(), peer, standing);
        still_logged.map_err(|why| why.to_string())?;
        let now = self.clock.unix().min(peer.path_not_after);
        peer.still_trusted(&snapshot.trust, &snapshot.deny, at(now))
            .and_then(|()| target.expected.check(peer))
            .map_err(|refusal| refusal.to_string())
    }
}

/// A service's endpoint that is passed over is seen nowhere else once another one serves. One that a
/// controller told of rests for a while after each time, so there are few. A declared one is tried
/// again at each use; that nobody is there is then nothing new, but that somebody else is, is told.
fn passed_over(call: &Call, why: &Unreached) {
    let is_nobody = matches!(why.outcome, Outcome::UpstreamUnreachable | Outcome::UpstreamTimeout);
    if is_nobody && call.running.is_none() {
        return;
    }
    let (endpoint, outcome) = (call.target.endpoint, why.outcome.word());
    let peer = why.peer.as_ref().map(tracing::field::display);
    tracing::warn!(%endpoint, peer, outcome, detail = why.detail, "an endpoint is passed over");
}

pub(super) fn unreached(workload: TcpStream, mut report: Report, why: Unreached) {
    if let Some(peer) = &why.peer {
        report.peer(peer);
    }
    report.detail(&why.detail);
    cut(workload, report, why.outcome);
}

fn part(workload: TcpStream, outcome: Outcome, report: Report) {
    if outcome == Outcome::Completed {
        drop(workload);
    } else {
        reset(workload);
    }
    report.finish(outcome);
}
