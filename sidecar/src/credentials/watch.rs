//! The standing connection to the CA, one for each SVID: bundle and deny list as they change, our
//! acknowledgements, and the directory's answers. Called by `credentials::run`.
//!
//! Never: takes a deny list without its signature, goes back to an older bundle or epoch, stays
//! silent about a CA that has gone silent.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use myelin_identity::UnixTime;
use myelin_identity::bundle::{DenyError, ForeignBundles, SignedDenyList, TrustBundle};
use myelin_identity::issuance::{
    BundleUpdate, DirectoryAnswer, DirectoryQuestion, IssuanceError, proto,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::acknowledge::acknowledge;
use super::ca_client::{CaStub, ConnectError, Connector, Trust};
use super::desk::{Desk, Question};
use super::issue::{REASON_TRAILER, quoted};
use super::renew;
use super::start::TrustFiles;
use super::store::{Rejected, Snapshot, Store};
use super::succession;
use super::workload::WorkloadIdentity;
use crate::addr::Endpoint;
use crate::directory::{Answer, Protocol};
use crate::metrics::{Metrics, TrustUpdate};

/// A new stream begins with the present state; a CA that does not send it is not well.
const FIRST_UPDATE_WITHIN: Duration = Duration::from_secs(10);
/// The CA speaks once a heartbeat; one may be late by as much again (a pause, a slow link).
const HEARTBEATS_OF_PATIENCE: u64 = 2;
/// Whatever heartbeat the CA announces: a black hole is noticed within five minutes.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);
/// A CA that goes on talking but has had no word from its own store for this long, four heartbeats,
/// is left for another, if there is another.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(20);
/// Acknowledgements that the CA has not read yet. A newer one stands for all before it.
const MAX_ACKS_QUEUED: usize = 4;

/// Why a standing connection ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the CA ended the watch: {0}")]
    Status(#[from] tonic::Status),
    #[error("the CA closed the watch")]
    Closed,
    #[error("the CA said nothing for {after:?}; bundle and deny list may be stale")]
    Silent { after: Duration },
    #[error(
        "the CA has not confirmed its deny list for {after:?}: it is cut off from its store; asking the next CA"
    )]
    Unconfirmed { after: Duration },
    #[error("the CA's message makes no sense: {0}")]
    Malformed(#[from] IssuanceError),
}

impl Broken {
    /// The CA trusts the root of our SVID no longer: only another SVID gets through to it.
    fn says_root_retired(&self) -> bool {
        self.says("untrusted_root").is_some()
    }

    /// The CA's words, if it hung up for this reason.
    fn says(&self, reason: &str) -> Option<String> {
        let Self::Status(status) = self else { return None };
        let said = status.metadata().get(REASON_TRAILER)?;
        (said == reason).then(|| quoted(status.message()))
    }
}

/// Why something that the CA sent was passed over.
#[derive(Debug, thiserror::Error)]
enum PassedOver {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error(transparent)]
    Unsigned(#[from] DenyError),
}

pub(super) struct Watch<'a> {
    pub(super) cas: &'a [Endpoint],
    pub(super) connector: &'a Connector,
    pub(super) store: &'a Store,
    pub(super) desk: &'a Desk,
    pub(super) metrics: &'a Metrics,
    pub(super) file: &'a TrustFiles,
    pub(super) renew_now: &'a Notify,
    /// Withdrawn while the CA does not talk to us for a denial.
    pub(super) workload: Option<&'a WorkloadIdentity>,
}

impl Watch<'_> {
    /// Runs until the process ends.
    pub(super) async fn run(self) -> Infallible {
        let mut turn = 0_usize;
        let mut waits = renew::waits(None);
        loop {
            let snapshot = self.usable_snapshot().await;
            let heard = AtomicBool::new(false);
            let ca = self.cas[turn % self.cas.len()];
            let broken = tokio::select! {
                broken = self.session(ca, &snapshot, &heard) => broken,
                () = self.superseded(&snapshot) => {
                    // The new SVID has to acknowledge for itself; questions wait that moment.
                    self.desk.connecting();
                    continue;
                }
            };
            self.desk.down();
            if broken.says_root_retired() {
                self.renew_now.notify_one();
            }
            if let Some((said, workload)) = broken.says("denied").zip(self.workload) {
                workload.bar(&said);
            }
            tracing::warn!(%ca, "the watch of bundle, deny list and directory broke: {broken}");
            if heard.load(Ordering::Relaxed) {
                waits = renew::waits(Some(self.life_left(&snapshot)));
            } else {
                turn = turn.wrapping_add(1);
            }
            let wait = waits.next().expect("the waits have no end");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.superseded(&snapshot) => {}
            }
        }
    }

    /// The watch proves our SVID, so it waits until there is one to prove.
    async fn usable_snapshot(&self) -> Arc<Snapshot> {
        let mut published = self.store.subscribe();
        loop {
            published.borrow_and_update();
            if let Ok(snapshot) = self.store.usable(self.connector.clock.unix()) {
                return snapshot;
            }
            self.desk.down();
            published.changed().await.expect("the store outlives its watch");
        }
    }

    /// Ends when another SVID than this one is in use.
    async fn superseded(&self, held: &Snapshot) {
        let mut published = self.store.subscribe();
        loop {
            published.borrow_and_update();
            let serial = self.store.load().map(|snapshot| snapshot.svid.serial().clone());
            if serial.as_ref() != Some(held.svid.serial()) {
                return;
            }
            published.changed().await.expect("the store outlives its watch");
        }
    }

    fn life_left(&self, held: &Snapshot) -> Duration {
        let now = self.connector.clock.unix();
        Duration::from_secs(held.usable_until().saturating_sub(now))
    }

    async fn session(&self, ca: Endpoint, held: &Snapshot, heard: &AtomicBool) -> Broken {
        let within = renew::attempt_deadline(Some(self.life_left(held)));
        // The newest bundle, which may be younger than the SVID.
        let newest = self.store.load();
        let bundle = &newest.as_deref().unwrap_or(held).bundle;
        let trust = Trust::Bundle(Arc::clone(bundle));
        let link = match self.connector.connect(ca, &trust, Some(held), within).await {
            Ok(link) => link,
            Err(error) => return error.into(),
        };
        let ended: Result<Infallible, Broken> = tokio::select! {
            ended = self.follow_bundle(link.stub.clone(), heard) => ended,
            ended = self.follow_directory(link.stub) => ended,
        };
        match ended {
            Err(broken) => broken,
        }
    }

    /// Publishes what the CA says about bundle and deny list, and acknowledges it.
    async fn follow_bundle(
        &self,
        mut stub: CaStub,
        heard: &AtomicBool,
    ) -> Result<Infallible, Broken> {
        let (acks, outgoing) = mpsc::channel(MAX_ACKS_QUEUED);
        acknowledge(self.store, self.workload, self.connector.clock.unix(), &acks);
        let mut silence = FIRST_UPDATE_WITHIN;
        let opening = stub.watch_bundle(ReceiverStream::new(outgoing));
        let opened = timeout(silence, opening).await;
        let mut updates = opened.map_err(|_| Broken::Silent { after: silence })??.into_inner();
        let (mut said_at, mut confirmed) = (0, Instant::now());
        loop {
            let update = timeout(silence, updates.message())
                .await
                .map_err(|_| Broken::Silent { after: silence })??
                .ok_or(Broken::Closed)?;
            let update = BundleUpdate::try_from(update)?;
            heard.store(true, Ordering::Relaxed);
            if let Some(workload) = self.workload {
                workload.unbar();
            }
            let patience = update.heartbeat_seconds.saturating_mul(HEARTBEATS_OF_PATIENCE);
            silence = Duration::from_secs(patience).min(LONGEST_SILENCE);
            if let Some(bundle) = update.bundle {
                self.take_bundle(&mut stub, bundle).await;
            }
            if let Some(list) = update.deny_list {
                self.take_deny_list(&list);
                if list.list.said_at() > said_at {
                    (said_at, confirmed) = (list.list.said_at(), Instant::now());
                } else if confirmed.elapsed() > CONFIRMED_WITHIN && self.cas.len() > 1 {
                    heard.store(false, Ordering::Relaxed);
                    return Err(Broken::Unconfirmed { after: CONFIRMED_WITHIN });
                }
            }
            if let Some(foreign) = update.foreign {
                self.take_foreign(foreign);
            }
            acknowledge(self.store, self.workload, self.connector.clock.unix(), &acks);
        }
    }

    async fn take_bundle(&self, stub: &mut CaStub, announced: TrustBundle) {
        let published = match self.proven(stub, announced).await {
            Ok(bundle) => self.store.publish_bundle(Arc::new(bundle)),
            Err(rejected) => Err(rejected),
        };
        match published {
            Ok(None) => {}
            Ok(Some(snapshot)) => {
                let generation = snapshot.bundle.generation();
                self.metrics.bundle_generation(generation);
                self.metrics.trust_update(TrustUpdate::BundleTaken);
                tracing::info!(generation, "trust bundle taken over");
                if let Err(error) = self.file.save(&snapshot.bundle) {
                    tracing::error!("the trust bundle was not kept for the next start: {error}");
                }
            }
            Err(rejected) => {
                if matches!(rejected, Rejected::RootRetired { .. }) {
                    self.renew_now.notify_one();
                }
                self.metrics.trust_update(match rejected {
                    Rejected::DutyTakenBack { .. } => TrustUpdate::DutyTakenBack,
                    _ => TrustUpdate::BundleRejected,
                });
                tracing::warn!("{rejected}");
            }
        }
    }

    fn take_foreign(&self, said: ForeignBundles) {
        let epoch = said.epoch();
        match self.store.publish_foreign(said) {
            Ok(None) => {}
            Ok(Some(snapshot)) => {
                let held = snapshot.trust.foreign().bundles();
                self.metrics.foreign_bundles(held.len());
                self.metrics.trust_update(TrustUpdate::ForeignTaken);
                let domains: Vec<&str> =
                    held.iter().map(|foreign| foreign.trust_domain().as_str()).collect();
                tracing::info!(epoch, ?domains, "bundles of foreign trust domains taken over");
            }
            Err(rejected) => {
                self.metrics.trust_update(TrustUpdate::ForeignRejected);
                tracing::warn!("{rejected}");
            }
        }
    }

    /// What the CA announces counts if the roots that we hold vouch for it.
    async fn proven(
        &self,
        stub: &mut CaStub,
        announced: TrustBundle,
    ) -> Result<TrustBundle, Rejected> {
        let held = Arc::clone(&self.store.load().ok_or(Rejected::NoSvid)?.bundle);
        let generation = announced.generation();
        let confirmed = succession::confirm(stub, &held, announced).await;
        confirmed.map_err(|why| Rejected::Unproven { generation, why: why.to_string() })
    }

    fn take_deny_list(&self, signed: &SignedDenyList) {
        match self.verified_deny_list(signed) {
            Ok(news) => {
                if news {
                    let epoch = signed.list.epoch();
                    self.metrics.trust_update(TrustUpdate::DenyListTaken);
                    self.metrics.deny_list_epoch(epoch);
                    tracing::info!(epoch, "deny list taken over");
                }
                self.metrics.deny_list_said_at(signed.list.said_at());
                if let Err(error) = self.file.save_denied(signed) {
                    tracing::error!("the deny list was not kept for the next start: {error}");
                }
            }
            Err(passed_over) => {
                self.metrics.trust_update(TrustUpdate::DenyListRejected);
                tracing::warn!("{passed_over}");
            }
        }
    }

    fn verified_deny_list(&self, signed: &SignedDenyList) -> Result<bool, PassedOver> {
        let bundle = Arc::clone(&self.store.load().ok_or(Rejected::NoSvid)?.bundle);
        let now = Duration::from_secs(self.connector.clock.unix());
        let list = signed.verify(&bundle, UnixTime::since_unix_epoch(now))?;
        Ok(self.store.publish_deny(list)?.is_some())
    }

    /// Carries the desk's questions to the CA and its answers back.
    async fn follow_directory(&self, mut stub: CaStub) -> Result<Infallible, Broken> {
        let (first, later) = self.desk.up();
        let questions = futures_util::stream::iter(first)
            .chain(ReceiverStream::new(later))
            .map(|question| proto::DirectoryQuestion::from(on_the_wire(question)));
        let opened = timeout(FIRST_UPDATE_WITHIN, stub.watch_directory(questions)).await;
        let after = FIRST_UPDATE_WITHIN;
        let mut answers = opened.map_err(|_| Broken::Silent { after })??.into_inner();
        loop {
            let answer = answers.message().await?.ok_or(Broken::Closed)?;
            self.desk.answered(learned(DirectoryAnswer::try_from(answer)?));
        }
    }
}

fn on_the_wire(question: Question) -> DirectoryQuestion {
    let ((address, port), forget) = match question {
        Question::Watch(place) => (place, false),
        Question::Forget(place) => (place, true),
    };
    DirectoryQuestion { address, port, forget }
}

fn learned(answer: DirectoryAnswer) -> Answer {
    let DirectoryAnswer { address, port, id, protocol } = answer;
    let protocol = Protocol::parse(&protocol)
        .unwrap_or_else(|| Protocol::PlainMtls { alpn: Some(protocol.into_bytes()) });
    Answer { place: (address, Some(port)), resident: id.map(|id| (id, protocol)) }
}
