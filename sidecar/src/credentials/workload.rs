//! The workload's own SVID: a companion of ours, with a key of its own that we hand out. Each SVID
//! of ours vouches for one at the CA, so it changes whenever ours does and never outlives it.
//! Called by `credentials::run`; read by `workload_api`.
//!
//! Never: hands out the key that mesh connections are made with, asks twice under one SVID with
//! two requests, writes or logs a key.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::RootId;
use myelin_identity::issuance::Lineage;
use myelin_identity::svid::Svid;
use myelin_identity::verify::Peer;
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Config;
use super::ca_client::{Connector, Trust};
use super::evidence::Right;
use super::issue::{Attempt, IssueError, Reason};
use super::keeper::issued;
use super::renew;
use super::start::Start;
use super::store::{Snapshot, Store, verified};
use crate::metrics::Metrics;

/// An SVID whose key belongs to the workload.
pub struct WorkloadSvid {
    pub svid: Svid,
    /// What its chain verifies to, as a peer would see it.
    pub peer: Peer,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
}

/// What the workload may have, as far as the CA has said.
#[derive(Clone, Debug, Default)]
pub enum Standing {
    /// Nothing yet.
    #[default]
    Pending,
    Held(Arc<WorkloadSvid>),
    /// The CA has denied this host, its lineage or its ID, in these words. What was held counts
    /// again if the CA takes that back.
    Withdrawn {
        said: Arc<str>,
        held: Option<Arc<WorkloadSvid>>,
    },
}

/// Where the workload's SVID hangs.
#[derive(Debug, Default)]
pub struct WorkloadIdentity(watch::Sender<Standing>);

impl WorkloadIdentity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn hold(&self, svid: WorkloadSvid) {
        self.0.send_replace(Standing::Held(Arc::new(svid)));
    }

    /// The CA gives no SVID, in these words.
    pub(super) fn withdraw(&self, said: &str) {
        self.0.send_replace(Standing::Withdrawn { said: said.into(), held: None });
    }

    /// The CA does not talk to us any more, in these words. It says so before any list that it has
    /// signed can reach us.
    pub(super) fn bar(&self, said: &str) {
        self.0.send_if_modified(|standing| {
            let Standing::Held(svid) = standing else { return false };
            let held = Some(Arc::clone(svid));
            *standing = Standing::Withdrawn { said: said.into(), held };
            true
        });
    }

    /// The CA talks to us.
    pub(super) fn unbar(&self) {
        self.0.send_if_modified(|standing| {
            let Standing::Withdrawn { held: Some(svid), .. } = standing else { return false };
            *standing = Standing::Held(Arc::clone(svid));
            true
        });
    }

    /// Whether whoever holds a workload's SVID of ours stands where an SVID under `root` stands: then we
    /// may speak for both when we acknowledge a bundle. Not before there has been one: an earlier run of
    /// this sidecar may have handed out another.
    pub(super) fn stands_under(&self, root: &RootId, now: u64) -> bool {
        match &*self.0.borrow() {
            Standing::Pending => false,
            Standing::Held(svid) => svid.peer.root == *root || svid.peer.path_not_after < now,
            // The CA has taken it away: nobody is to be spared.
            Standing::Withdrawn { .. } => true,
        }
    }

    /// What is held now, and each change from now on.
    pub fn subscribe(&self) -> watch::Receiver<Standing> {
        self.0.subscribe()
    }
}

impl WorkloadSvid {
    /// PKCS#8, DER. For the workload, over its socket, and nobody else.
    pub fn reveal_key(&self) -> &[u8] {
        self.key.secret_der()
    }
}

impl fmt::Debug for WorkloadSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSvid")
            .field("id", self.svid.id())
            .field("serial", self.svid.serial())
            .finish_non_exhaustive()
    }
}

/// The SVID in use and where it stands: what a companion is asked for with.
#[derive(Clone, Debug)]
pub(super) struct Vouching {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) lineage: Lineage,
}

/// Asks for companions.
pub(super) struct Companion<'a> {
    pub(super) config: &'a Config,
    pub(super) connector: &'a Connector,
    pub(super) store: &'a Store,
    pub(super) metrics: &'a Metrics,
    pub(super) start: &'a Start,
    /// Told by the keeper at each SVID that it has taken over.
    pub(super) vouching: watch::Receiver<Option<Vouching>>,
}

impl Companion<'_> {
    /// Runs until the process ends; idle where nobody asked for a workload's SVID.
    pub(super) async fn run(mut self) -> Infallible {
        let Some(identity) = self.config.workload.clone() else {
            return std::future::pending().await;
        };
        let mut newer = self.vouching.clone();
        loop {
            let vouching = self.vouching.borrow_and_update().clone();
            newer.borrow_and_update();
            if let Some(vouching) = vouching {
                tokio::select! {
                    () = self.obtain(&vouching, &identity) => {}
                    // What was asked for under the SVID before this one is nobody's any more.
                    _ = newer.changed() => continue,
                }
            }
            self.vouching.changed().await.expect("the keeper lives as long as we do");
        }
    }

    /// Ends when there is a companion under this SVID, or when it is clear that it brings none.
    async fn obtain(&self, by: &Vouching, identity: &WorkloadIdentity) {
        let left = by.snapshot.usable_until().saturating_sub(self.connector.clock.unix());
        let life = Some(Duration::from_secs(left));
        let mut waits = renew::waits(life);
        let attempt = match Attempt::new(Right::Companion(by.lineage)) {
            Ok(attempt) => attempt,
            Err(error) => return tracing::error!("no SVID for the workload: {error}"),
        };
        for turn in 0_usize.. {
            match self.ask(&attempt, by, turn, renew::attempt_deadline(life)).await {
                Ok(svid) => return self.taken_over(svid, identity),
                Err(error) => {
                    self.metrics.workload_renewal(error.word());
                    tracing::warn!(outcome = error.word(), "no SVID for the workload: {error}");
                    if let IssueError::Refused {
                        reason: Reason::Denied | Reason::Withdrawn,
                        said,
                    } = &error
                    {
                        identity.withdraw(said);
                    }
                    // One generation vouches once: after a clear answer only the next SVID asks.
                    if !error.leaves_open() {
                        return;
                    }
                }
            }
            sleep(waits.next().expect("the waits have no end")).await;
        }
    }

    async fn ask(
        &self,
        attempt: &Attempt,
        by: &Vouching,
        turn: usize,
        within: Duration,
    ) -> Result<WorkloadSvid, IssueError> {
        let deadline = Instant::now() + within;
        let ca = self.config.cas[turn % self.config.cas.len()];
        let newest = self.store.load();
        let bundle = Arc::clone(&newest.as_deref().unwrap_or(&by.snapshot).bundle);
        let trust = Trust::Bundle(Arc::clone(&bundle));
        let mut link = self.connector.connect(ca, &trust, Some(&by.snapshot), within).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let (host, evidence) = (&self.start.host, &self.config.evidence);
        let response = attempt.send(&mut link, host, evidence, self.config.lifetime, left).await?;
        let issued = issued(attempt, &response, &mut link).await?;
        let newer = issued.bundle.generation() >= bundle.generation();
        let bundle = if newer { Arc::clone(&issued.bundle) } else { bundle };
        let now = self.connector.clock.unix();
        let mine = verified(issued, &bundle, Some(by.snapshot.svid.id()), now)?;
        Ok(WorkloadSvid { svid: mine.svid, peer: mine.own, key: mine.key })
    }

    fn taken_over(&self, svid: WorkloadSvid, identity: &WorkloadIdentity) {
        self.metrics.workload_renewal(super::ATTESTED);
        self.metrics.workload_svid(svid.peer.path_not_after);
        tracing::info!(
            id = %svid.svid.id(),
            serial = %svid.svid.serial(),
            not_after = svid.peer.path_not_after,
            "the workload's own SVID taken over"
        );
        identity.hold(svid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::Root;

    #[test]
    fn a_sidecar_speaks_for_its_workload_once_both_svids_stand_under_one_root() {
        let [old, new] = [Root::new(), Root::new()];
        let of = |root: &Root| {
            let issued = root.issue("spiffe://example.org/ns/shop/sa/web", 300);
            let bundle = Arc::clone(&issued.bundle);
            let now = crate::credentials::testing::NOW;
            let mine = verified(issued, &bundle, None, now).unwrap();
            Arc::new(WorkloadSvid { svid: mine.svid, peer: mine.own, key: mine.key })
        };
        let (of_old, of_new) = (of(&old), of(&new));
        let (end, said) = (of_old.peer.path_not_after, Arc::from("denied"));
        let barred = Standing::Withdrawn { said, held: Some(Arc::clone(&of_old)) };
        for (standing, root, at, expected) in [
            (Standing::Pending, of_old.peer.root, end, false),
            (Standing::Held(Arc::clone(&of_old)), of_old.peer.root, end, true),
            // Ours is renewed under another root, and the workload's is not yet.
            (Standing::Held(Arc::clone(&of_old)), of_new.peer.root, end, false),
            (Standing::Held(Arc::clone(&of_old)), of_new.peer.root, end + 1, true),
            (Standing::Held(Arc::clone(&of_new)), of_new.peer.root, end, true),
            (barred, of_new.peer.root, end, true),
        ] {
            let identity = WorkloadIdentity::default();
            identity.0.send_replace(standing.clone());
            assert_eq!(identity.stands_under(&root, at), expected, "{standing:?} at {at}");
        }
    }

    #[test]
    fn what_the_ca_bars_is_withdrawn_until_it_talks_to_us_again() {
        let root = Root::new();
        let issued = root.issue("spiffe://example.org/ns/shop/sa/web", 300);
        let (bundle, now) = (Arc::clone(&issued.bundle), crate::credentials::testing::NOW);
        let mine = verified(issued, &bundle, None, now).unwrap();
        let svid = Arc::new(WorkloadSvid { svid: mine.svid, peer: mine.own, key: mine.key });
        let identity = WorkloadIdentity::default();
        let now = || identity.subscribe().borrow().clone();
        // Nothing is held: whether there will be anything is for another question to find out.
        identity.bar("denied");
        assert!(matches!(now(), Standing::Pending));
        identity.0.send_replace(Standing::Held(Arc::clone(&svid)));
        identity.bar("denied");
        assert!(matches!(now(), Standing::Withdrawn { said, .. } if &*said == "denied"));
        identity.unbar();
        assert!(matches!(now(), Standing::Held(held) if Arc::ptr_eq(&held, &svid)));
        // What was refused for good does not come back by talking.
        identity.withdraw("host_denied");
        identity.unbar();
        assert!(matches!(now(), Standing::Withdrawn { held: None, .. }));
    }
}
