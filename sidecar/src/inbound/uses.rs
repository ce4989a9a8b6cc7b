//! The uses of one mesh connection, one after the other: greet, wait for `open`, judge, relay,
//! settle, and again. Called by `serve` once the handshake is done.
//!
//! Never: a second use before the first has gone whole both ways under fresh keys; a report that
//! covers two uses.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::verify::Peer;
use tokio::net::TcpStream;

use super::Inbound;
use crate::addr::{OrigDst, PeerAddr};
use crate::drain::Closing;
use crate::metrics::{Direction, Security};
use crate::net::reset;
use crate::relay::{self, Carrier, Ending, Limits, Link, LinkError, Said};
use crate::report::{Outcome, Report};
use crate::tls::Session;
use crate::wire::{Acceptor, Action, Event, Side};

/// The proof that our leaf is in the issuance log; empty until a log is kept.
const NO_PROOF: &[u8] = &[];

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
        from: PeerAddr,
        to: OrigDst,
        report: Report,
    ) {
        let Session { records, peer, .. } = session;
        let mut link = Link::new(records, Acceptor::new(self.config.budget));
        let mut report = Some(report);
        // The proof is judged by the issuance log's rules, which come with the log.
        if let Err(error) = link.greet(NO_PROOF, self.config.handshake, |_proof| ()).await {
            return self.lost(link, report, &error);
        }
        loop {
            match self.next_open(&mut link).await {
                Ok(true) => {}
                Ok(false) => {
                    link.close(self.config.handshake).await;
                    if let Some(report) = report {
                        report.finish(Outcome::Completed);
                    }
                    return;
                }
                Err(error) => {
                    let broke = Outcome::from(&error) == Outcome::PeerViolation;
                    let report =
                        report.or_else(|| broke.then(|| self.report_again(&peer, from, to)));
                    return self.lost(link, report, &error);
                }
            }
            let this = report.take().unwrap_or_else(|| self.report_again(&peer, from, to));
            match self.one_use(&mut link, &peer, from, to, this).await {
                After::Reusable => {}
                After::Closed => return,
                After::Cut => return reset(link.into_records().into_tcp()),
            }
        }
    }

    /// Waits for the dialer's `open`. `false`: the connection ended, or ends, without another use.
    async fn next_open(&self, link: &mut Link<Acceptor>) -> Result<bool, LinkError> {
        if link.machine().action() == Action::Retire || self.door.is_leaving() {
            link.control(Acceptor::retire)?;
            return Ok(false);
        }
        let keep = self.config.keep;
        tokio::select! {
            opened = link.event(keep, |event| matches!(event, Event::Opened(_))) => match opened {
                Ok(opened) => Ok(opened.unwrap_or(false)),
                Err(LinkError::Silent(_)) => Ok(false),
                Err(error) => Err(error),
            },
            () = self.door.closed(Closing::Leaving) => {
                link.control(Acceptor::retire)?;
                Ok(false)
            }
        }
    }

    async fn one_use(
        &self,
        link: &mut Link<Acceptor>,
        peer: &Peer,
        from: PeerAddr,
        to: OrigDst,
        mut report: Report,
    ) -> After {
        let workload = match self.admit(peer, from, to).await {
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
        let ending = self.relay(link, &workload, peer, to, &report).await;
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
        peer: &Peer,
        to: OrigDst,
        report: &Report,
    ) -> Ending<(Outcome, String)> {
        let limits = Limits { idle: self.config.idle, answer: None };
        let meter = report.bytes();
        let withdrawn = self.withdrawn(peer, to);
        relay::run(carrier, workload, &meter, limits, Said::default(), withdrawn).await
    }

    fn report_again(&self, peer: &Peer, from: PeerAddr, to: OrigDst) -> Report {
        let mut report = Report::open(&self.metrics, &self.roster, Direction::Inbound, from);
        report.destination(to);
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
