//! The uses of one mesh connection, one after the other: greet, wait for `open`, judge, relay,
//! settle, and again. Called by `serve` once the handshake is done.
//!
//! Never: a second use before the first has gone whole both ways under fresh keys; a report that
//! covers two uses.

// SPDX-License-Identifier: Apache-2.0

use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Guest, Inbound, Stage};
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
pub(super) enum After {
    /// The connection may carry another one.
    Reusable,
    /// It ended in good order.
    Closed,
    /// It must not look as if it had.
    Cut,
}

/// A mesh connection whose peer has proven itself, and what its uses need.
pub(super) struct Connection {
    pub(super) link: Link<Acceptor>,
    guest: Guest,
    stage: Stage,
    /// No use begins after this.
    last_open: Instant,
    /// Its own before the first use, that of the use at hand later.
    report: Option<Report>,
    place: Option<Place>,
}

impl Inbound {
    /// Says hello, and judges the proof in the peer's.
    pub(super) async fn greet(
        &self,
        session: Session,
        snapshot: &Snapshot,
        stage: Stage,
        place: Place,
        report: Report,
    ) -> Option<Connection> {
        let Session { records, peer, chain, .. } = session;
        let mut link = Link::new(records, Acceptor::new(self.config.budget));
        let judge = |proof: &[u8]| {
            self.judge.peer(snapshot.trust.view(), &*peer, &chain, proof, Direction::Inbound)
        };
        // What is refused is told to the dialer in answer to its first `open`.
        match link.greet(&snapshot.log_proof, self.config.handshake, judge).await {
            Ok(logged) => {
                let guest = Guest { peer, logged: logged.map_err(Box::new) };
                let last_open = Instant::now() + self.config.max_age;
                let (report, place) = (Some(report), Some(place));
                Some(Connection { link, guest, stage, last_open, report, place })
            }
            Err(error) => {
                lost(Some(report), &error);
                reset(link.into_records().into_tcp());
                None
            }
        }
    }

    /// All uses of one connection, one after the other.
    pub(super) async fn uses(&self, connection: &mut Connection) -> After {
        loop {
            // Between uses the connection takes nobody's place. Where no more may rest, it ends
            // after a use, and keeps its place before the first.
            let rest = self.door.rest();
            let may_wait = rest.is_some() || connection.report.is_some();
            if rest.is_some() {
                connection.place = None;
            }
            match self.next_open(connection, may_wait).await {
                Ok(true) => {}
                Ok(false) => return unused(connection).await,
                Err(error) => {
                    if Outcome::from(&error) == Outcome::PeerViolation {
                        self.report_again(connection);
                    }
                    // A recycled connection that its dialer simply drops is nobody's use.
                    lost(connection.report.take(), &error);
                    return After::Cut;
                }
            }
            if self.is_over(connection) {
                // Nobody has heard of this use: the dialer opens it elsewhere.
                let _ = connection.link.control(Acceptor::retire);
                return unused(connection).await;
            }
            self.report_again(connection);
            if connection.place.is_none() {
                connection.place = self.door.enter();
            }
            drop(rest);
            if connection.place.is_none() {
                let refuse = |machine: &mut Acceptor, out: &mut Vec<u8>| {
                    machine.refuse(Refuse::Overloaded, out)
                };
                let _ = connection.link.control(refuse);
                connection.finish(Outcome::Overloaded);
                connection.link.close(PARTING).await;
                return After::Closed;
            }
            match self.one_use(connection).await {
                After::Reusable => {}
                ended => return ended,
            }
        }
    }

    /// No use begins on this connection any more: its budget is spent, we are leaving, or our
    /// credentials are not those of its handshake.
    fn is_over(&self, connection: &Connection) -> bool {
        let generation = self.store.load().map(|snapshot| snapshot.generation);
        connection.link.machine().action() == Action::Retire
            || self.door.is_leaving()
            || generation != Some(connection.stage.generation)
    }

    /// Waits for the dialer's `open`. `false`: the connection ended, or ends, without another use.
    async fn next_open(
        &self,
        connection: &mut Connection,
        may_wait: bool,
    ) -> Result<bool, LinkError> {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let is_old = Instant::now() >= connection.last_open || !may_wait;
        while !is_old && !self.is_over(connection) {
            let link = &mut connection.link;
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
        connection.link.control(Acceptor::retire)?;
        Ok(false)
    }

    async fn one_use(&self, connection: &mut Connection) -> After {
        let workload = match self.admit(&connection.guest, &connection.stage).await {
            Ok(workload) => workload,
            Err(refusal) => {
                // If the words cannot be sent any more, the closing connection says it.
                let _ = connection.link.control(|machine, out| machine.refuse(refusal.tell, out));
                connection.detail(&refusal.detail);
                connection.finish(refusal.outcome);
                connection.link.close(self.config.handshake).await;
                return After::Closed;
            }
        };
        if let Err(error) = connection.link.control(Acceptor::accept) {
            reset(workload);
            connection.detail(&error);
            connection.finish(Outcome::from(&error));
            return After::Cut;
        }
        let outcome = {
            let Connection { link, guest, stage, report, .. } = &mut *connection;
            let report = report.as_mut().expect("a use was opened, and a report with it");
            let ending = self.relay(link, &workload, guest, stage, report).await;
            report.ending(&ending)
        };
        if outcome != Outcome::Completed {
            reset(workload);
            connection.finish(outcome);
            return After::Cut;
        }
        drop(workload);
        connection.finish(outcome);
        match connection.link.settle(self.config.handshake).await {
            Ok(true) => After::Reusable,
            Ok(false) => {
                connection.link.close(self.config.handshake).await;
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
        stage: &Stage,
        report: &Report,
    ) -> Ending<(Outcome, String)> {
        let linger = C::SETTLES.then_some(LINGER);
        let limits = Limits { idle: self.config.idle, answer: None, linger };
        let meter = report.bytes();
        let withdrawn = pin!(self.withdrawn(guest, stage));
        relay::run(carrier, workload, &meter, limits, Said::default(), withdrawn).await
    }

    /// A report for the use at hand, unless there is one: the first use goes on with that of the
    /// connection.
    fn report_again(&self, connection: &mut Connection) {
        let Connection { guest, stage, report, .. } = connection;
        report.get_or_insert_with(|| {
            let report = Report::open(&self.metrics, &self.roster, Direction::Inbound, stage.from);
            report.destination(stage.to);
            report.security(Security::Mesh);
            report.peer(&guest.peer.id);
            report
        });
    }
}

impl Connection {
    fn detail(&mut self, detail: impl ToString) {
        if let Some(report) = &mut self.report {
            report.detail(detail);
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(report) = self.report.take() {
            report.finish(outcome);
        }
    }
}

/// The connection broke between uses, or before the first.
fn lost(report: Option<Report>, error: &LinkError) {
    if let Some(mut report) = report {
        report.detail(error);
        report.finish(Outcome::from(error));
    }
}

/// The connection ends without a use since the last one; only its first report tells of that.
async fn unused(connection: &mut Connection) -> After {
    connection.link.close(PARTING).await;
    connection.finish(Outcome::Unused);
    After::Closed
}
