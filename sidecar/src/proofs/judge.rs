//! The judge of log proofs: one for the process, asked by every worker once a handshake. What was
//! verified is remembered by the chain's hash; a certificate that is in a log stays in it.
//!
//! Never: remembers a refusal (a peer that was refused may come back with a better proof); holds
//! its lock while it verifies.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use myelin_identity::bundle::{RootId, Trust, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::{Chain, LogKey, LogRefusal, Seen, Verified, Witnesses};
use myelin_identity::log::{named_log_extension, verify};
use myelin_identity::verify::Peer;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::duty::has_duty;
use super::{Fork, NotLogged};
use crate::metrics::{Direction, Metrics};

/// How many verified SVIDs are remembered: as many peers as `tls` remembers. An entry is about
/// 360 bytes. When it is full it starts afresh: a peer that comes again is verified again.
const REMEMBERED: usize = 1024;

/// Checkpoints that wait to be compared with others of their log. A process that meets more new
/// SVIDs than this at once does not remember the others, so that they tell theirs when they come again.
pub(super) const MAX_UNTOLD: usize = 256;

/// Outcome words beside the refusals'.
const VERIFIED: &str = "verified";
const REMEMBERED_WORD: &str = "remembered";
const NO_LOG: &str = "no_log";
const EXEMPT: &str = "exempt";

/// Hash of a chain and of the root that it ended in.
type Key = [u8; 32];

/// What a peer's certificate stands on. Kept with its connection, and asked again when the world
/// changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No log counts below the root of its path.
    NoLog,
    /// A declared plain-mTLS peer: it cannot show a proof, and our own configuration exempts it.
    Exempt,
    /// It is in the first log, and its issuer is in the second.
    Logged(Arc<[LogKey; 2]>),
}

/// Whose a verified path is, and where it ended.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    pub trust_domain: &'a TrustDomain,
    pub root: &'a RootId,
}

impl<'a> From<&'a Peer> for Path<'a> {
    fn from(peer: &'a Peer) -> Self {
        Self { trust_domain: peer.id.trust_domain(), root: &peer.root }
    }
}

/// Whether the checkpoints of a proof have reached whoever compares them.
enum Told {
    Yes,
    No,
}

/// See the module's header.
pub struct Judge {
    witnesses: Witnesses,
    known: Mutex<HashMap<Key, Standing>>,
    forked: ArcSwap<Vec<Fork>>,
    told: mpsc::Sender<Seen>,
    metrics: Arc<Metrics>,
}

impl Judge {
    /// The receiver gets every checkpoint that a proof rested on, for whoever compares them.
    pub fn new(witnesses: Witnesses, metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::Receiver<Seen>) {
        let (told, seen) = mpsc::channel(MAX_UNTOLD);
        let forked = ArcSwap::from_pointee(Vec::new());
        let judge = Self { witnesses, known: Mutex::default(), forked, told, metrics };
        (Arc::new(judge), seen)
    }

    /// Judges a peer whose chain was verified under `trust`, by the proof in its hello.
    pub fn peer<'p>(
        &self,
        trust: Trust<'_>,
        path: impl Into<Path<'p>>,
        chain: &[CertificateDer<'_>],
        proof: &[u8],
        direction: Direction,
    ) -> Result<Standing, NotLogged> {
        let path = path.into();
        let bundle = bundle_of(trust, path);
        let judged = bundle.and_then(|bundle| self.judged(bundle, path.root, chain, proof));
        self.counted(judged, direction)
    }

    /// Our own SVID: before it is taken over, since what peers would refuse is of no use, and
    /// whenever somebody asks whether it still counts.
    pub fn own(
        &self,
        bundle: &TrustBundle,
        root: &RootId,
        chain: &[CertificateDer<'_>],
        proof: &[u8],
    ) -> Result<(), NotLogged> {
        self.judged(bundle, root, chain, proof).map(|_| ())
    }

    /// A peer that speaks plain mTLS and so shows no proof. `declared`: our own configuration says
    /// that it does. The CA's directory alone may not: whoever stole an issuer's key could speak
    /// for the directory as well.
    pub fn plain_mtls<'p>(
        &self,
        trust: Trust<'_>,
        path: impl Into<Path<'p>>,
        declared: bool,
        direction: Direction,
    ) -> Result<Standing, NotLogged> {
        let path = path.into();
        let bundle = bundle_of(trust, path);
        let judged = bundle.and_then(|bundle| match has_duty(bundle, path.root) {
            false => Ok((Standing::NoLog, NO_LOG)),
            true if declared => Ok((Standing::Exempt, EXEMPT)),
            true => Err(NotLogged::Undeclared),
        });
        self.counted(judged, direction)
    }

    fn counted(
        &self,
        judged: Result<(Standing, &'static str), NotLogged>,
        direction: Direction,
    ) -> Result<Standing, NotLogged> {
        let word = judged.as_ref().map_or_else(NotLogged::word, |(_, word)| word);
        self.metrics.log_proof(direction, word);
        judged.map(|(standing, _)| standing)
    }

    /// The question of later: may this root still come without a log, and has one of its logs shown
    /// two histories since?
    pub fn still<'p>(
        &self,
        trust: Trust<'_>,
        path: impl Into<Path<'p>>,
        standing: &Standing,
    ) -> Result<(), NotLogged> {
        match standing {
            Standing::NoLog => {
                let path = path.into();
                match bundle_of(trust, path) {
                    Err(why @ NotLogged::ForeignUnlogged { .. }) => Err(why),
                    // A log was stated for its root since: it comes again, with a proof.
                    Ok(bundle) if has_duty(bundle, path.root) => {
                        Err(NotLogged::Refused(LogRefusal::NotLogged))
                    }
                    // What is not trusted at all any more has its own word elsewhere.
                    _ => Ok(()),
                }
            }
            Standing::Exempt => Ok(()),
            Standing::Logged(logs) => self.not_forked(logs),
        }
    }

    fn not_forked(&self, logs: &[LogKey; 2]) -> Result<(), NotLogged> {
        let forked = self.forked.load();
        let found = |log: &LogKey| forked.iter().find(|fork| fork.log.is(log));
        match logs.iter().find_map(|log| Some((log, found(log)?))) {
            None => Ok(()),
            Some((log, Fork { evidence, .. })) => {
                Err(NotLogged::Forked { origin: log.name().to_owned(), evidence: evidence.clone() })
            }
        }
    }

    /// Checkpoints of this log were passed over: what stands on it is verified once more at its next
    /// connection, and tells its checkpoints again.
    pub fn tell_again(&self, log: &LogKey) {
        let stands_on =
            |standing: &Standing| matches!(standing, Standing::Logged(logs) if logs.contains(log));
        self.lock().retain(|_, standing| !stands_on(standing));
    }

    /// From now on nothing in this log counts. Connections made before are judged again by
    /// whoever calls this.
    pub fn distrust(&self, fork: &Fork) {
        self.forked.rcu(|forked| {
            let mut forked = Vec::clone(forked);
            if !forked.iter().any(|known| known.log == fork.log) {
                forked.push(fork.clone());
            }
            forked
        });
    }

    /// Logs that are distrusted.
    pub fn forked(&self) -> Arc<Vec<Fork>> {
        self.forked.load_full()
    }

    pub(super) fn judged(
        &self,
        bundle: &TrustBundle,
        root: &RootId,
        chain: &[CertificateDer<'_>],
        proof: &[u8],
    ) -> Result<(Standing, &'static str), NotLogged> {
        let key = key(bundle.stated_log(root), root, chain);
        // The lock is free again before anything is verified.
        let known = self.lock().get(&key).cloned();
        if let Some(known) = known {
            if let Standing::Logged(logs) = &known {
                self.not_forked(logs)?;
            }
            return Ok((known, REMEMBERED_WORD));
        }
        let root_der = root_der(bundle, root)?;
        let (standing, word) = match has_duty(bundle, root) {
            true => match self.verified(chain, root_der, bundle.stated_log(root), proof)? {
                (standing, Told::Yes) => (standing, VERIFIED),
                // Its next connection tells it again.
                (standing, Told::No) => return Ok((standing, VERIFIED)),
            },
            false => (Standing::NoLog, NO_LOG),
        };
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, standing.clone());
        Ok((standing, word))
    }

    fn verified(
        &self,
        chain: &[CertificateDer<'_>],
        root: &CertificateDer<'_>,
        stated: Option<&LogKey>,
        proof: &[u8],
    ) -> Result<(Standing, Told), NotLogged> {
        let [leaf, intermediate] = chain else {
            return Err(NotLogged::Chain { seen: chain.len() });
        };
        let path = Chain { leaf, intermediate, root };
        let Verified { leaf, issuer, .. } = verify(proof, &path, stated, &self.witnesses)?;
        let logs = [leaf.log.clone(), issuer.log.clone()];
        // A log that has forked has nothing more to tell.
        self.not_forked(&logs)?;
        let standing = Standing::Logged(Arc::new(logs));
        let mut told = Told::Yes;
        for seen in [leaf, issuer] {
            if self.told.try_send(seen).is_err() {
                self.metrics.log_checkpoint("passed_over");
                told = Told::No;
            }
        }
        Ok((standing, told))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Standing>> {
        // A panic elsewhere leaves at worst a missing entry.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bundle that this path was verified by. A foreign root that names no
/// log vouches for somebody only if the operators of the CA and of this sidecar have accepted that of its domain.
fn bundle_of<'t>(trust: Trust<'t>, path: Path<'_>) -> Result<&'t TrustBundle, NotLogged> {
    let Path { trust_domain, root } = path;
    let unknown = NotLogged::Refused(LogRefusal::UnknownLog { whose: "root" });
    let bundle = trust.of(trust_domain).ok_or(unknown)?;
    let is_ours = trust_domain == trust.own().trust_domain();
    root_der(bundle, root)?;
    if is_ours || trust.is_unlogged(trust_domain) || has_duty(bundle, root) {
        return Ok(bundle);
    }
    Err(NotLogged::ForeignUnlogged { trust_domain: trust_domain.clone() })
}

/// The root of a path; the bundle that the path was verified by has it.
fn root_der<'b>(
    bundle: &'b TrustBundle,
    id: &RootId,
) -> Result<&'b CertificateDer<'static>, NotLogged> {
    let at = bundle.root_ids().position(|root| root == *id);
    let root = at.and_then(|at| bundle.roots().nth(at));
    root.ok_or(NotLogged::Refused(LogRefusal::UnknownLog { whose: "root" }))
}

/// Each certificate's length goes in as well, so that no two chains read the same; and the log that
/// the bundle states, so that what was judged without one is judged again.
fn key(stated: Option<&LogKey>, root: &RootId, chain: &[CertificateDer<'_>]) -> Key {
    let mut hash = Context::new(&SHA256);
    hash.update(root.as_bytes());
    hash.update(&stated.map_or(Vec::new(), named_log_extension));
    for certificate in chain {
        hash.update(&(certificate.len() as u64).to_be_bytes());
        hash.update(certificate);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}
