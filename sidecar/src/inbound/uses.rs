//! The uses of one mesh connection, one after the other: greet, wait for `open`, judge, relay,
//! settle, and again. Called by `serve` once the handshake is done.
//!
//! Never: a second use before the first has gone whole both ways under fresh keys; a report that
//! covers two uses.

// SPDX-License-Identifier: Apache-2.0

use std::pin::pin;
use std::time::Duration;

use myelin_identity::verify::Peer;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Guest, Inbound, Stage};
use crate::addr::OrigDst;
use crate::credentials::Snapshot;
use crate::drain::{Closing, Place};
use crate::metrics::{Direction, Security};
use crate::net::reset;
use crate::relay::{self, Carrier, Ending, LINGER, Limits, Link, LinkError, Said};
use crate::report::{Outcome, Report};
use crate::tls::Session;
use crate::wire::{Acceptor, Action, Event, Refuse, Side};

/// How long a dialer may take to end a connection that we have retired: dialers look at their idle
/// ones each second, and our own leaving waits for no one longer.
const PARTING: Duration = Duration::from_secs(2);

/// What a use left behind.
enum After {
    /// The connection may carry another one.
    Reusable,
    /// It ended in good order.
    Closed,
    /// It must not look as if it had.
    Cut,
}

impl Inbound {
    pub(super) async fn mesh_connection(
        &self,
        session: Session,
        snapshot: &Snapshot,
        stage: Stage,
        place: Place,
        report: Report,
    ) {
        let Session { records, peer, chain, .. } = session;
        let mut link = Link::new(records, Acceptor::new(self.config.budget));
        let mut report = Some(report);
        let judge = |proof: &[u8]| {
            self.judge.peer(snapshot.trust.view(), &peer, &chain, proof, Direction::Inbound)
        };
        // What is refused is told to the dialer in answer to its first `open`.
        let greeted = link.greet(&snapshot.log_proof, self.config.handshake, judge);
        let greeted = Box::pin(greeted).await;
        drop(chain);
        let guest = match greeted {
            Ok(logged) => Guest { peer, logged: logged.map_err(Box::new) },
            Err(error) => return self.lost(link, report, &error),
        };
        let last_open = Instant::now() + self.config.max_age;
        let mut place = Some(place);
        loop {
            // Between uses the connection takes nobody's place. Where no more may rest, it ends
            // after a use, and keeps its place before the first.
            let rest = self.door.rest();
            let may_wait = rest.is_some() || report.is_some();
            place = place.filter(|_| rest.is_none());
            match self.next_open(&mut link, stage, last_open, may_wait).await {
                Ok(true) => {}
                Ok(false) => {
                    link.close(PARTING).await;
                    return unused(report);
                }
                Err(error) => {
                    let broke = Outcome::from(&error) == Outcome::PeerViolation;
                    let report =
                        report.or_else(|| broke.then(|| self.report_again(&guest.peer, stage)));
                    return self.lost(link, report, &error);
                }
            }
            if self.is_over(&link, stage) {
                // Nobody has heard of this use: the dialer opens it elsewhere.
                let _ = link.control(Acceptor::retire);
                link.close(PARTING).await;
                return unused(report);
            }
            let this = report.take().unwrap_or_else(|| self.report_again(&guest.peer, stage));
            place = place.or_else(|| self.door.enter());
            drop(rest);
            if place.is_none() {
                let _ = link.control(|machine, out| machine.refuse(Refuse::Overloaded, out));
                this.finish(Outcome::Overloaded);
                return link.close(PARTING).await;
            }
            match self.one_use(&mut link, &guest, stage, this).await {
                After::Reusable => {}
                After::Closed => return,
                After::Cut => return reset(link.into_records().into_tcp()),
            }
        }
    }

    /// No use begins on this connection any more: its budget is spent, we are leaving, or our
    /// credentials are not those of its handshake.
    fn is_over(&self, link: &Link<Acceptor>, stage: Stage) -> bool {
        let generation = self.store.load().map(|snapshot| snapshot.generation);
        link.machine().action() == Action::Retire
            || self.door.is_leaving()
            || generation != Some(stage.generation)
    }

    /// Waits for the dialer's `open`. `false`: the connection ended, or ends, without another use.
    async fn next_open(
        &self,
        link: &mut Link<Acceptor>,
        stage: Stage,
        last_open: Instant,
        may_wait: bool,
    ) -> Result<bool, LinkError> {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let is_old = Instant::now() >= last_open || !may_wait;
        while !is_old && !self.is_over(link, stage) {
            let is_open = |event: Event<'_>| matches!(event, Event::Opened(_));
            tokio::select! {
                opened = link.event(self.config.keep, is_open) => return match opened {
                    Ok(opened) => Ok(opened.unwrap_or(false)),
                    // Nobody needs it; the dialer learns that before the connection ends.
                    Err(LinkError::Silent(_)) => link.control(Acceptor::retire).map(|_| false),
                    Err(error) => Err(error),
                },
                changed = changes.changed() => {
                    if changed.is_err() {
                        self.door.closed(Closing::Leaving).await;
                    }
                }
                () = self.door.closed(Closing::Leaving) => {}
            }
        }
        link.control(Acceptor::retire)?;
        Ok(false)
    }

    async fn one_use(
        &self,
        link: &mut Link<Acceptor>,
        guest: &Guest,
        stage: Stage,
        mut report: Report,
    ) -> After {
        let Stage { from, to, .. } = stage;
        let workload = match self.admit(guest, from, to).await {
            Ok(workload) => workload,
            Err(refusal) => {
                // If the words cannot be sent any more, the closing connection says it.
                let _ = link.control(|machine, out| machine.refuse(refusal.tell, out));
                report.detail(&refusal.detail);
                report.finish(refusal.outcome);
                link.close(self.config.handshake).await;
                return After::Closed;
            }
        };
        if let Err(error) = link.control(Acceptor::accept) {
            reset(workload);
            report.detail(&error);
            report.finish(Outcome::from(&error));
            return After::Cut;
        }
        let ending = self.relay(link, &workload, guest, to, &report).await;
        let outcome = report.ending(&ending);
        if outcome != Outcome::Completed {
            reset(workload);
            report.finish(outcome);
            return After::Cut;
        }
        drop(workload);
        report.finish(outcome);
        match link.settle(self.config.handshake).await {
            Ok(true) => After::Reusable,
            Ok(false) => {
                link.close(self.config.handshake).await;
                After::Closed
            }
            Err(_) => After::Cut,
        }
    }

    pub(super) async fn relay<C: Carrier>(
        &self,
        carrier: &mut C,
        workload: &TcpStream,
        guest: &Guest,
        to: OrigDst,
        report: &Report,
    ) -> Ending<(Outcome, String)> {
        let linger = C::SETTLES.then_some(LINGER);
        let limits = Limits { idle: self.config.idle, answer: None, linger };
        let meter = report.bytes();
        let withdrawn = pin!(self.withdrawn(guest, to));
        relay::run(carrier, workload, &meter, limits, Said::default(), withdrawn).await
    }

    fn report_again(&self, peer: &Peer, stage: Stage) -> Report {
        let mut report = Report::open(&self.metrics, &self.roster, Direction::Inbound, stage.from);
        report.destination(stage.to);
        report.security(Security::Mesh);
        report.peer(&peer.id);
        report
    }

    /// The connection broke between uses, or before the first.
    fn lost(&self, link: Link<Acceptor>, report: Option<Report>, error: &LinkError) {
        reset(link.into_records().into_tcp());
        // A recycled connection that its dialer simply drops is nobody's use.
        if let Some(mut report) = report {
            report.detail(error);
            report.finish(Outcome::from(error));
        }
    }
}

/// The connection ends without a use since the last one; only its first report tells of that.
fn unused(report: Option<Report>) {
    if let Some(report) = report {
        report.finish(Outcome::Unused);
    }
}
