//! How one connection ended: one outcome word, one counter, one duration, one log line. Called by
//! `inbound` and `outbound`, which open a `Report` at accept and finish it once.
//!
//! Never: a connection that ends without a word (a report that is dropped unfinished says
//! `abandoned`), a payload byte, a lock or a metric lookup while bytes move (the ending looks its
//! own counter up, once).

// SPDX-License-Identifier: Apache-2.0

mod outcome;
mod roster;

use std::rc::Rc;
use std::sync::Arc;

use myelin_identity::id::SpiffeId;
use tokio::time::Instant;

pub use outcome::{Blame, Outcome};
pub use roster::{Entry, Roster, Row};

use crate::addr::{OrigDst, PeerAddr};
use crate::metrics::{ByteCounters, Direction, Metrics, OpenConnection, PeerLabel, Security};
use crate::relay::{Ending, Meter, PlainEnding};
use crate::tls::Facts;

/// The guard of one connection. What can be said of it lies in its row of the roster: once, since a
/// connection's task keeps this for as long as it lasts.
pub struct Report {
    metrics: Arc<Metrics>,
    open: Option<OpenConnection>,
    entry: Entry,
    detail: Option<Box<str>>,
}

/// Counts the bytes of one connection, in the metric and in the roster.
pub struct Bytes {
    counters: ByteCounters,
    row: Rc<Row>,
}

impl Report {
    pub fn open(
        metrics: &Arc<Metrics>,
        roster: &Roster,
        direction: Direction,
        from: PeerAddr,
    ) -> Self {
        Self {
            open: Some(metrics.connection(direction)),
            metrics: Arc::clone(metrics),
            entry: roster.enter(Row::new(direction, from)),
            detail: None,
        }
    }

    pub fn direction(&self) -> Direction {
        self.entry.row().direction()
    }

    pub fn destination(&self, to: OrigDst) {
        self.entry.row().set_destination(to);
    }

    pub fn security(&self, security: Security) {
        self.entry.row().set_security(security);
    }

    pub fn peer(&self, peer: &SpiffeId) {
        self.entry.row().set_peer(peer);
    }

    /// What the log line says beside the outcome word, for whoever reads it at 3 a.m.
    pub fn detail(&mut self, detail: impl ToString) {
        self.detail = Some(detail.to_string().into());
    }

    /// The outcome of a use that ran, with its reason noted.
    pub fn ending(&mut self, ending: &Ending<(Outcome, String)>) -> Outcome {
        match ending {
            Ending::Completed => Outcome::Completed,
            Ending::WorkloadReset => Outcome::WorkloadReset,
            Ending::PeerReset => Outcome::PeerReset,
            Ending::Refused(why) => Outcome::RefusedByPeer(*why),
            Ending::HandedBack(_) => Outcome::HandedBack,
            Ending::NoAnswer => Outcome::PeerSilent,
            Ending::Idle => Outcome::IdleTimeout,
            Ending::Interrupted((outcome, why)) => {
                self.detail(why);
                *outcome
            }
            Ending::Broken(error) => {
                self.detail(error);
                Outcome::from(error)
            }
        }
    }

    /// The outcome of a connection that went in plaintext, with its reason noted.
    pub fn plain_ending(&mut self, ending: PlainEnding<(Outcome, String)>) -> Outcome {
        match ending {
            PlainEnding::Completed => Outcome::Completed,
            PlainEnding::Idle => Outcome::IdleTimeout,
            PlainEnding::Interrupted((outcome, why)) => {
                self.detail(why);
                outcome
            }
            PlainEnding::Reset(error) => {
                self.detail(error);
                Outcome::PeerReset
            }
        }
    }

    /// Counts a handshake that came to an end, good or bad.
    pub fn handshake(&self, outcome: &'static str, facts: Facts, began: Instant) {
        let Facts { group, cipher, resumed } = facts;
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.handshake(self.direction(), outcome, group, cipher, resumed, seconds);
    }

    /// The byte counters, resolved once.
    pub fn bytes(&self) -> Bytes {
        Bytes {
            counters: self.metrics.bytes(self.direction(), self.entry.row().security()),
            row: self.entry.row_handle(),
        }
    }

    /// The one ending.
    pub fn finish(mut self, outcome: Outcome) {
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        let Some(open) = self.open.take() else { return };
        let row = self.entry.row();
        let (direction, security) = (row.direction(), row.security());
        let seconds = row.seconds();
        let peer = row.peer();
        let label = peer.as_ref();
        let label = label.map_or_else(PeerLabel::none, |peer| self.metrics.peer_label(peer));
        open.closed(outcome.word(), security, &label, seconds);
        let (received, sent) = row.bytes();
        let peer = peer.as_ref().map_or("-", SpiffeId::as_str);
        let to = row.destination().map(|to| to.to_string()).unwrap_or_default();
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(
                    target: "connection",
                    direction = direction.word(),
                    outcome = outcome.word(),
                    security = security.word(),
                    from = %row.from(),
                    to,
                    peer,
                    received,
                    sent,
                    seconds,
                    blame = outcome.blame().word(),
                    detail = self.detail.as_deref().unwrap_or(""),
                    "connection ended"
                )
            };
        }
        // What went well is only of interest to somebody who looks; the rest is for everybody.
        match outcome.blame() {
            Blame::Nobody => say!(debug),
            Blame::Us | Blame::Configuration => say!(warn),
            _ => say!(info),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.close(Outcome::Abandoned);
    }
}

impl Meter for Bytes {
    fn to_peer(&self, bytes: usize) {
        self.counters.sent.inc_by(bytes as u64);
        self.row.count_sent(bytes);
    }

    fn to_workload(&self, bytes: usize) {
        self.counters.received.inc_by(bytes as u64);
        self.row.count_received(bytes);
    }
}
