//! My identity as every connection sees it: an immutable snapshot behind one atomic pointer,
//! swapped only after what is new has been verified. Read by `inbound`, `outbound` and `admin`, written by
//! `credentials::run` and the watch.
//!
//! Never: I/O, a clock, a snapshot that was not verified as a whole, a key that leaves the process.

// SPDX-License-Identifier: Apache-2.0

mod foreign;
mod rejected;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use myelin_identity::UnixTime;
use myelin_identity::bundle::{
    DenyList, ForeignBundles, RootId, SignedDenyList, TrustBundle, TrustBundles,
};
use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::svid::{P256Spki, Svid};
use myelin_identity::verify::{self, Peer, Refusal, Role};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub use rejected::Rejected;

use crate::addr::Clock;
use crate::proofs::{self, Judge, NotLogged};
use crate::tls;

/// One consistent view of who we are and whom we trust. Loaded once for a whole handshake.
pub struct Snapshot {
    /// Grows by one at each publish of an SVID, a bundle or a deny list.
    pub generation: u64,
    pub svid: Svid,
    pub bundle: Arc<TrustBundle>,
    /// What peers are judged under: `bundle`, and those of the domains that we federate with.
    pub trust: TrustBundles,
    pub deny: Arc<DenyList>,
    pub tls: tls::Configs,
    /// What our hello shows to peers: the proof that our leaf is in the issuance log, as the CA sent
    /// it. Empty where no log is kept.
    pub log_proof: Arc<[u8]>,
    /// What our own chain verifies to, as a peer would see it.
    own: Peer,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Snapshot {
    /// Who we are.
    pub fn id(&self) -> &SpiffeId {
        &self.own.id
    }
}

/// Why there is nothing to authenticate with. The word is a connection's outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    #[error("this sidecar has no SVID yet; see its log for why the CA has not issued one")]
    Pending,
    #[error(
        "this sidecar's SVID has expired: now {now}, notAfter {not_after}; it is renewed as soon \
         as the CA answers again"
    )]
    Expired { now: u64, not_after: u64 },
    #[error(
        "this sidecar's SVID is not valid yet: now {now}, notBefore {not_before}; the clock of \
         this machine went back"
    )]
    NotYetValid { now: u64, not_before: u64 },
}

impl NoIdentity {
    /// The stable reason word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "identity_pending",
            Self::Expired { .. } => "identity_expired",
            Self::NotYetValid { .. } => "identity_not_yet_valid",
        }
    }
}

/// What the CA has just issued, not yet believed.
pub(super) struct Issued {
    /// Leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
    /// The public half of `key`, as the CSR carried it.
    pub(super) spki: P256Spki,
    pub(super) bundle: Arc<TrustBundle>,
    /// Under which the CA was recognised: what `bundle` is compared with at the first SVID.
    pub(super) known: Arc<TrustBundle>,
    /// The proof that the leaf is in the issuance log; empty where none is kept.
    pub(super) log_proof: Arc<[u8]>,
}

/// The place where the current snapshot hangs.
pub struct Store {
    current: ArcSwapOption<Snapshot>,
    bumped: watch::Sender<u64>,
    /// Serialises writers; readers never see it.
    writer: Mutex<Writer>,
    /// Of an earlier run, for the first snapshot.
    remembered: Mutex<Option<SignedDenyList>>,
    clock: Clock,
    /// Looks at our own log proof before it is shown to anybody; absent in tests of other things.
    judge: Option<Arc<Judge>>,
}

/// What snapshots are built from beside what each publish brings.
#[derive(Default)]
struct Writer {
    alpns: Vec<Vec<u8>>,
    /// The foreign domains that configuration names; others are not held.
    federates_with: BTreeSet<TrustDomain>,
    /// Those of them whose roots need not name a log, if the CA says so as well.
    federates_unlogged: BTreeSet<TrustDomain>,
    /// All that the CA has said last, wanted or not.
    foreign: Arc<ForeignBundles>,
}

impl Store {
    /// `alpns` are the protocols that configuration declares for peers without `myelin/1`; the
    /// clock is the one that TLS judges certificates by.
    pub fn new(alpns: Vec<Vec<u8>>, clock: Clock, judge: Option<Arc<Judge>>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwapOption::empty(),
            bumped: watch::Sender::new(0),
            writer: Mutex::new(Writer { alpns, ..Writer::default() }),
            remembered: Mutex::default(),
            clock,
            judge,
        })
    }

    /// Who was denied when an earlier run ended: holds from the first snapshot on if that one's
    /// bundle vouches for it, until the CA says something newer.
    pub(super) fn remember_denied(&self, list: Option<SignedDenyList>) {
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }

    fn remembered(&self, bundle: &TrustBundle) -> Arc<DenyList> {
        let held = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(signed) = held else { return Arc::default() };
        match signed.verify(bundle, at(self.clock.unix())) {
            Ok(list) => {
                let (epoch, said_at) = (list.epoch(), list.said_at());
                tracing::info!(epoch, said_at, "deny list of an earlier run taken over");
                Arc::new(list.clone())
            }
            Err(why) => {
                tracing::warn!("the deny list of an earlier run is not used: {why}");
                Arc::default()
            }
        }
    }

    /// The newest snapshot, expired or not.
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// The newest snapshot if our SVID is valid at `now` (unix seconds).
    pub fn usable(&self, now: u64) -> Result<Arc<Snapshot>, NoIdentity> {
        let snapshot = self.load().ok_or(NoIdentity::Pending)?;
        let (not_before, not_after) = (snapshot.svid.not_before(), snapshot.usable_until());
        if now > not_after {
            return Err(NoIdentity::Expired { now, not_after });
        }
        if now < not_before {
            return Err(NoIdentity::NotYetValid { now, not_before });
        }
        Ok(snapshot)
    }

    /// Tells of each publish by its generation. A receiver that lags sees the newest only.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.bumped.subscribe()
    }

    /// Other declared protocols after a reload of the configuration.
    pub fn declare_alpns(&self, alpns: Vec<Vec<u8>>) -> Result<(), Rejected> {
        let mut writer = self.writer();
        if writer.alpns == alpns {
            return Ok(());
        }
        writer.alpns = alpns;
        if let Some(old) = self.load() {
            let (bundle, deny) = (Arc::clone(&old.bundle), Arc::clone(&old.deny));
            self.swap_in(&writer, old.mine(), bundle, deny)?;
        }
        Ok(())
    }

    /// Takes over a fresh SVID if it is what was asked for: well formed, for our key, our ID (the
    /// one of before where there was one), valid now, and good for both roles under its bundle.
    pub(super) fn publish_svid(
        &self,
        issued: Issued,
        expected: Option<&SpiffeId>,
    ) -> Result<Arc<Snapshot>, Rejected> {
        let writer = self.writer();
        let old = self.load();
        let before = old.as_ref().map(|old| old.svid.id());
        let held = old.as_ref().map_or(&issued.known, |old| &old.bundle);
        // What is older than what we hold is passed over: a lost race with the watch, which has
        // published something since, or an answer that would take us back, to any root.
        let is_older = issued.bundle.generation() < held.generation();
        let bundle = Arc::clone(if is_older { held } else { &issued.bundle });
        no_less_duty(held, &bundle)?;
        let mine = verified(issued, &bundle, before.or(expected), self.clock.unix())?;
        if let Some(judge) = &self.judge {
            judge.own(&bundle, &mine.own.root, mine.svid.chain(), &mine.log_proof)?;
        }
        let deny = old.map_or_else(|| self.remembered(&bundle), |old| Arc::clone(&old.deny));
        self.swap_in(&writer, mine, bundle, deny)
    }

    /// Takes over a newer bundle; `Ok(None)` if it says nothing new. A bundle without the root of
    /// our own SVID is refused: the caller renews, and the answer brings SVID and bundle at once.
    pub(super) fn publish_bundle(
        &self,
        bundle: Arc<TrustBundle>,
    ) -> Result<Option<Arc<Snapshot>>, Rejected> {
        let writer = self.writer();
        let old = self.load().ok_or(Rejected::NoSvid)?;
        if bundle.trust_domain() != old.bundle.trust_domain() {
            return Err(Rejected::OtherTrustDomain {
                seen: bundle.trust_domain().clone(),
                expected: old.bundle.trust_domain().clone(),
            });
        }
        if bundle.generation() < old.bundle.generation() {
            return Err(Rejected::OlderBundle {
                seen: bundle.generation(),
                held: old.bundle.generation(),
            });
        }
        if *bundle == *old.bundle {
            return Ok(None);
        }
        // Before the root is looked at: a bundle that is not believed is no reason to renew.
        no_less_duty(&old.bundle, &bundle)?;
        if !bundle.holds_root(&old.own.root) {
            return Err(Rejected::RootRetired { generation: bundle.generation() });
        }
        let deny = Arc::clone(&old.deny);
        self.swap_in(&writer, old.mine(), bundle, deny).map(Some)
    }

    /// Takes over a deny list whose signature the caller has verified. Epochs only grow; the same
    /// epoch again (a heartbeat) changes nothing and must say the same.
    pub(super) fn publish_deny(&self, list: &DenyList) -> Result<Option<Arc<Snapshot>>, Rejected> {
        let writer = self.writer();
        let old = self.load().ok_or(Rejected::NoSvid)?;
        let (seen, held) = (list.epoch(), old.deny.epoch());
        if seen < held {
            return Err(Rejected::OlderDenyList { seen, held });
        }
        let same = list.entries().eq(old.deny.entries());
        // Epoch 0 is what we hold before the CA has said anything at all.
        if seen == held && held != 0 && !same {
            return Err(Rejected::ContradictoryDenyList { epoch: seen });
        }
        if seen == held && same {
            return Ok(None);
        }
        let bundle = Arc::clone(&old.bundle);
        self.swap_in(&writer, old.mine(), bundle, Arc::new(list.clone())).map(Some)
    }

    /// The same once more under a new generation: idle connections part, and new ones are judged
    /// from the start.
    pub fn begin_generation(&self) -> Result<(), Rejected> {
        let writer = self.writer();
        if let Some(old) = self.load() {
            let (bundle, deny) = (Arc::clone(&old.bundle), Arc::clone(&old.deny));
            self.swap_in(&writer, old.mine(), bundle, deny)?;
        }
        Ok(())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A writer that panicked has swapped in nothing.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap_in(
        &self,
        writer: &Writer,
        mine: Mine,
        bundle: Arc<TrustBundle>,
        deny: Arc<DenyList>,
    ) -> Result<Arc<Snapshot>, Rejected> {
        let Mine { svid, own, key, log_proof } = mine;
        let trust = writer.trust(&bundle);
        let tls = tls::Configs::build(svid.chain(), &key, &trust, &writer.alpns, &self.clock)?;
        let generation = self.load().map_or(1, |old| old.generation + 1);
        let fresh =
            Arc::new(Snapshot { generation, svid, bundle, trust, deny, tls, log_proof, own, key });
        self.current.store(Some(Arc::clone(&fresh)));
        self.bumped.send_replace(generation);
        Ok(fresh)
    }
}

impl Snapshot {
    /// The end of our SVID, or of an issuer above it if that is earlier (unix seconds, included).
    pub fn usable_until(&self) -> u64 {
        self.own.path_not_after
    }

    /// Whether a peer would still take us for who we are.
    pub fn still_trusted(&self, now: UnixTime) -> Result<(), Refusal> {
        self.own.still_trusted(&self.bundle, &self.deny, now)
    }

    /// The root that our SVID chains to.
    pub(super) fn root(&self) -> &RootId {
        &self.own.root
    }

    /// Whether a peer would still take our own log proof.
    pub fn logged(&self, judge: &Judge) -> Result<(), NotLogged> {
        judge.own(&self.bundle, &self.own.root, self.svid.chain(), &self.log_proof)
    }

    /// For the connection to the CA, which proves the current SVID.
    pub(super) fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    fn mine(&self) -> Mine {
        let (svid, own) = (self.svid.clone(), self.own.clone());
        let (key, log_proof) = (Arc::clone(&self.key), Arc::clone(&self.log_proof));
        Mine { svid, own, key, log_proof }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation)
            .field("id", self.svid.id())
            .field("serial", self.svid.serial())
            .finish_non_exhaustive()
    }
}

/// An SVID that was verified, with what it verified to.
pub(super) struct Mine {
    pub(super) svid: Svid,
    pub(super) own: Peer,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
    log_proof: Arc<[u8]>,
}

/// Takes an SVID for ours (or our workload's) if it is what was asked for.
pub(super) fn verified(
    issued: Issued,
    bundle: &TrustBundle,
    expected: Option<&SpiffeId>,
    now: u64,
) -> Result<Mine, Rejected> {
    let svid = Svid::from_chain(issued.chain)?;
    if svid.leaf().key != issued.spki {
        return Err(Rejected::WrongKey);
    }
    if svid.id().is_reserved() {
        return Err(Rejected::ReservedId { seen: svid.id().clone() });
    }
    if let Some(expected) = expected.filter(|expected| *expected != svid.id()) {
        return Err(Rejected::WrongId { seen: svid.id().clone(), expected: expected.clone() });
    }
    let at = at(now);
    verify::peer(svid.chain(), bundle, at, Role::Client).map_err(Rejected::of_refusal)?;
    let own = verify::peer(svid.chain(), bundle, at, Role::Server).map_err(Rejected::of_refusal)?;
    Ok(Mine { svid, own, key: issued.key, log_proof: issued.log_proof })
}

fn no_less_duty(held: &TrustBundle, new: &TrustBundle) -> Result<(), Rejected> {
    if proofs::takes_duty_back(held, new) {
        return Err(Rejected::DutyTakenBack { generation: new.generation() });
    }
    Ok(())
}

fn at(now: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(now))
}
