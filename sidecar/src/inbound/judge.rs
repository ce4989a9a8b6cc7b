//! Trust at the moment of use: is this peer, whose handshake was good, still good, and may it
//! enter this port now? Asked at every `open`, again whenever the world changes, and answered with
//! a stream to the workload only if all is well. Called by the uses of this room.
//!
//! Never: answers from the snapshot of the handshake; dials before policy has said yes.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::verify::{Peer, Refusal};
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Guest, Inbound, Stage};
use crate::addr::{Endpoint, OrigDst, PeerAddr};
use crate::drain::Closing;
use crate::metrics::Verdict;
use crate::policy::{Authorized, NoPlaintext};
use crate::proofs::NotLogged;
use crate::report::Outcome;
use crate::wire::Refuse;

/// How often running plaintext is judged again by the clock alone, at most: the clock may be set.
const PLAINTEXT_ASKED_AGAIN: Duration = Duration::from_secs(60);

/// Why a use is not taken, for our log and for the peer.
pub(super) struct NotTaken {
    pub(super) outcome: Outcome,
    pub(super) tell: Refuse,
    pub(super) detail: String,
}

impl Inbound {
    /// Judges the peer with this moment's snapshot and dials the workload.
    pub(super) async fn admit(&self, guest: &Guest, stage: &Stage) -> Result<TcpStream, NotTaken> {
        let Stage { from, to, .. } = *stage;
        if self.door.is_leaving() {
            return Err(NotTaken::new(Outcome::Drained, Refuse::Draining, "we are leaving"));
        }
        self.is_logged(guest).map_err(|why| NotTaken::not_logged(&why))?;
        let authorized = self.judge_peer(&guest.peer, from, to)?;
        self.dial_workload(&authorized, to).await
    }

    /// What the proof in its hello came to, and whether that still counts.
    fn is_logged(&self, guest: &Guest) -> Result<(), NotLogged> {
        let standing = guest.logged.as_ref().map_err(|why| NotLogged::clone(why))?;
        let Some(snapshot) = self.store.load() else { return Ok(()) };
        self.judge.still(snapshot.trust.view(), &*guest.peer, standing)
    }

    fn judge_peer(&self, peer: &Peer, from: PeerAddr, to: OrigDst) -> Result<Authorized, NotTaken> {
        let now = self.clock.unix();
        let snapshot = self.store.usable(now).map_err(|none| {
            NotTaken::new(Outcome::NoIdentity(none.word()), Refuse::IdentityUnavailable, none)
        })?;
        peer.still_trusted(&snapshot.trust, &snapshot.deny, at(now)).map_err(NotTaken::peer)?;
        if !peer.ip_sans.contains(&from.ip()) && !self.directory.load().binds(&peer.id, from.ip()) {
            let refusal = Refusal::WrongAddress { address: from.ip(), seen: peer.ip_sans.clone() };
            return Err(NotTaken::peer(refusal));
        }
        let policy = self.policy.load();
        let verdict = policy.authorize(&peer.id, from.ip(), to.port());
        let word = if verdict.is_ok() { Verdict::Allowed } else { Verdict::Denied };
        self.metrics.verdict(word);
        for audited in policy.audit(&peer.id, from.ip(), to.port()) {
            self.metrics.policies().audited();
            if audited.is_told(now) {
                let (rule, port, verdict) = (&*audited.rule.name, to.port(), word.word());
                tracing::info!(rule, peer = %peer.id, from = %from.ip(), port, verdict, "audited");
            }
        }
        verdict.map_err(|denied| NotTaken::new(Outcome::PolicyDenied, Refuse::PolicyDenied, denied))
    }

    /// Only the holder of the proof gets here, and only to the captured address.
    async fn dial_workload(&self, proof: &Authorized, to: OrigDst) -> Result<TcpStream, NotTaken> {
        debug_assert_eq!(proof.port(), to.port(), "the proof is for the port that is dialled");
        self.dialer.dial(Endpoint(to.0)).await.map_err(|error| {
            NotTaken::new(Outcome::from(&error), Refuse::UpstreamUnreachable, error)
        })
    }

    /// Asks policy about plaintext, and dials the workload.
    pub(super) async fn admit_plaintext(
        &self,
        from: PeerAddr,
        to: OrigDst,
    ) -> Result<TcpStream, NotTaken> {
        let now = self.clock.unix();
        let verdict = self.policy.load().admit_plaintext(from.ip(), to.port(), now);
        self.metrics.verdict(if verdict.is_ok() { Verdict::Allowed } else { Verdict::Denied });
        let admitted = verdict.map_err(|why| NotTaken::no_plaintext(&why))?;
        self.dial_workload(&admitted.proof, to).await
    }

    /// Returns when plaintext that runs must end: it may not enter any more, or our grace is over.
    pub(super) async fn plaintext_over(&self, from: PeerAddr, to: OrigDst) -> (Outcome, String) {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        loop {
            let now = self.clock.unix();
            let until = match self.policy.load().admit_plaintext(from.ip(), to.port(), now) {
                Ok(admitted) => admitted.until,
                Err(why) => return (Outcome::Withdrawn, why.to_string()),
            };
            let left = Duration::from_secs(until.saturating_sub(now)).min(PLAINTEXT_ASKED_AGAIN);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // The world ends with the process; the drain decides how.
                    self.door.closed(Closing::Cut).await;
                    return (Outcome::Drained, String::new());
                },
                () = sleep(left) => {}
                () = self.door.closed(Closing::Cut) => return (Outcome::Drained, String::new()),
            }
        }
    }

    /// Returns when a running use must end, with the reason: permission or trust was withdrawn,
    /// the peer's SVID expired too long ago, or our grace is over.
    pub(super) async fn withdrawn(&self, guest: &Guest, stage: &Stage) -> (Outcome, String) {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let last_moment = self.last_moment(&guest.peer);
        loop {
            if let Err(why) = self.still_entitled(guest, stage) {
                return (Outcome::Withdrawn, why);
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        // The world ends with the process; the drain decides how.
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
    fn still_entitled(&self, guest: &Guest, stage: &Stage) -> Result<(), String> {
        self.is_logged(guest).map_err(|why| why.to_string())?;
        let peer = &guest.peer;
        let Some(snapshot) = self.store.load() else { return Ok(()) };
        let now = self.clock.unix().min(peer.path_not_after);
        peer.still_trusted(&snapshot.trust, &snapshot.deny, at(now))
            .map_err(|refusal| refusal.to_string())?;
        let Stage { from, to, .. } = stage;
        let verdict = self.policy.load().authorize(&peer.id, from.ip(), to.port());
        verdict.map(drop).map_err(|denied| denied.to_string())
    }

    fn last_moment(&self, peer: &Peer) -> Instant {
        let left = peer.path_not_after.saturating_sub(self.clock.unix());
        Instant::now() + Duration::from_secs(left) + self.config.use_after_expiry
    }
}

impl NotTaken {
    fn new(outcome: Outcome, tell: Refuse, detail: impl ToString) -> Self {
        Self { outcome, tell, detail: detail.to_string() }
    }

    /// Nobody is told: there is no protocol to say it in.
    fn no_plaintext(why: &NoPlaintext) -> Self {
        let outcome = match why {
            NoPlaintext::Pending => Outcome::PolicyPending,
            NoPlaintext::Strict { .. } => Outcome::Handshake("plaintext_refused"),
            NoPlaintext::Denied { .. } | NoPlaintext::Named { .. } => Outcome::PolicyDenied,
        };
        Self::new(outcome, Refuse::PolicyDenied, why)
    }

    fn not_logged(why: &NotLogged) -> Self {
        Self::new(Outcome::from(why), Refuse::NotLogged, why)
    }

    fn peer(refusal: Refusal) -> Self {
        let tell = match &refusal {
            Refusal::Expired { .. } | Refusal::NotYetValid { .. } => Refuse::IdentityExpired,
            Refusal::Denied { .. } => Refuse::IdentityDenied,
            Refusal::UntrustedRoot { .. } | Refusal::WrongTrustDomain { .. } => {
                Refuse::UntrustedRoot
            }
            Refusal::WrongAddress { .. } => Refuse::AddressUnbound,
            _ => Refuse::Unspecified,
        };
        Self::new(Outcome::PeerRefused(refusal.word()), tell, refusal)
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
