//! A new mesh connection: dial, handshake, compare who answered with whom was meant, greet. Called
//! by `mesh` for a use that finds none in the pool, and by `sweep` ahead of uses.
//!
//! Never: a byte of a workload; an offer with less when the first one failed.

// SPDX-License-Identifier: Apache-2.0

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::id::SpiffeId;
use myelin_identity::verify::{Peer, Refusal};
use rustls::pki_types::UnixTime;
use tokio::time::Instant;

use super::Outbound;
use super::pool::Connection;
use crate::credentials::{NoIdentity, Snapshot};
use crate::directory::{Protocol, Target};
use crate::metrics::Direction;
use crate::net::{DialError, reset};
use crate::relay::{Link, LinkError};
use crate::report::Outcome;
use crate::tls::{self, Deadline, Facts, Offer, Session};
use crate::wire::{Budget, Dialer};

/// Connections end somewhere in the last fifth of the age that they may reach, so that those of one
/// busy second do not all end in another.
const AGE_SPREAD_PERCENT: u32 = 20;

/// Why nobody, or not who was meant, was reached.
pub(super) struct Unreached {
    pub(super) outcome: Outcome,
    pub(super) detail: String,
    /// Who answered, if that is known.
    pub(super) peer: Option<SpiffeId>,
    pub(super) blame: Blame,
}

/// On whom it lies that nobody was reached. Until somebody is, no byte of the workload has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// What we lack, we lack everywhere.
    Us,
    /// Nobody is there, or not who was meant, or he wants nothing of us: another may do better.
    Endpoint,
}

impl Outbound {
    /// A connection on which the first use may be opened.
    pub(super) async fn connect(&self, target: &Target) -> Result<Connection, Unreached> {
        let (session, snapshot) = self.reach(target).await?;
        let Session { records, peer, chain, .. } = session;
        let mut link = Link::new(records, Dialer::new(self.budget(target)));
        let judge = |proof: &[u8]| {
            self.judge.peer(snapshot.trust.view(), &*peer, &chain, proof, Direction::Outbound)
        };
        let greeted = link.greet(&snapshot.log_proof, self.config.handshake, judge).await;
        let unreached = match greeted {
            Ok(Ok(standing)) => {
                let until = Instant::now() + shortened(self.config.max_age, random());
                let generation = snapshot.generation;
                return Ok(Connection { link, peer, standing, generation, until });
            }
            Ok(Err(not_logged)) => Unreached::new(Outcome::from(&not_logged), not_logged),
            Err(error) => Unreached::from(&error),
        };
        reset(link.into_records().into_tcp());
        Err(Unreached { peer: Some(peer.id.clone()), ..unreached })
    }

    /// A session with exactly whom was meant, and the credentials that it was made with.
    pub(super) async fn reach(
        &self,
        target: &Target,
    ) -> Result<(Session, Arc<Snapshot>), Unreached> {
        let snapshot = self.store.usable(self.clock.unix())?;
        let tcp = self.dialer.dial(target.endpoint).await;
        let tcp = tcp.map_err(|error| {
            let blame = match error {
                DialError::NoDescriptors { .. } => Blame::Us,
                DialError::Unreachable { .. } | DialError::TimedOut { .. } => Blame::Endpoint,
            };
            Unreached { blame, ..Unreached::new(Outcome::from(&error), error) }
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
            self.shaken(outcome.word(), Facts::NONE, began);
            Unreached::new(outcome, error)
        })?;
        if let Err(refusal) = self.is_meant(&session.peer, target, &snapshot) {
            reset(session.records.into_tcp());
            self.shaken(refusal.word(), session.facts, began);
            let outcome = Outcome::PeerRefused(refusal.word());
            let peer = Some(session.peer.id.clone());
            return Err(Unreached { peer, ..Unreached::new(outcome, refusal) });
        }
        self.shaken("ok", session.facts, began);
        Ok((session, snapshot))
    }

    fn is_meant(&self, peer: &Peer, target: &Target, snapshot: &Snapshot) -> Result<(), Refusal> {
        target.expected.check(peer)?;
        peer.still_trusted(&snapshot.trust, &snapshot.deny, at(self.clock.unix()))
    }

    /// Counts a handshake that came to an end, good or bad.
    fn shaken(&self, outcome: &'static str, facts: Facts, began: Instant) {
        let Facts { group, cipher, resumed } = facts;
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.handshake(Direction::Outbound, outcome, group, cipher, resumed, seconds);
    }

    fn budget(&self, target: &Target) -> Budget {
        let Budget { max_uses, max_bytes } = self.config.budget;
        let own = target.max_uses.map_or(max_uses, NonZeroU64::from);
        Budget { max_uses: max_uses.min(own), max_bytes }
    }
}

impl Unreached {
    fn new(outcome: Outcome, detail: impl ToString) -> Self {
        Self { outcome, detail: detail.to_string(), peer: None, blame: Blame::Endpoint }
    }
}

impl From<&LinkError> for Unreached {
    fn from(error: &LinkError) -> Self {
        Self::new(Outcome::from(error), error)
    }
}

impl From<NoIdentity> for Unreached {
    fn from(none: NoIdentity) -> Self {
        Self { blame: Blame::Us, ..Self::new(Outcome::NoIdentity(none.word()), none) }
    }
}

pub(super) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn shortened(age: Duration, random: u8) -> Duration {
    age - age / 100 * AGE_SPREAD_PERCENT * u32::from(random) / u32::from(u8::MAX)
}

fn random() -> u8 {
    let mut byte = [0];
    // Without randomness there is no spread; everything that needs it for safety fails by itself.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_over_the_last_fifth() {
        let age = Duration::from_secs(600);
        assert_eq!(shortened(age, 0), age);
        assert_eq!(shortened(age, u8::MAX), Duration::from_secs(480));
        let middle = shortened(age, 100);
        assert!(middle > Duration::from_secs(480) && middle < age);
    }
}
