//! Keeps one SVID fresh: first contact, renewals, recovery. One loop for the life of the process,
//! called by `credentials::run`.
//!
//! Never: gives up once there has been an SVID, renews from one generation with two requests,
//! sends a token where a host key would do.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::{SuccessionError, TrustBundle};
use myelin_identity::issuance::{IssueResponse, Lineage};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::Config;
use super::ca_client::{ConnectError, Connector, Link, Trust};
use super::desk::Desk;
use super::evidence::Right;
use super::issue::{Attempt, IssueError, Reason};
use super::renew::{self, Schedule};
use super::start::{Start, StartError};
use super::store::{Issued, NoIdentity, Rejected, Snapshot, Store};
use super::succession::{self, Unproven};
use super::workload::Vouching;
use crate::addr::Endpoint;
use crate::metrics::{Metrics, TrustUpdate};
use crate::proofs;

/// How often the wall clock is compared with the SVID's end: a machine that was suspended has an
/// expired SVID although its monotonic clock says that the renewal is hours away.
const CLOCK_CHECK_EVERY: Duration = Duration::from_secs(10);

/// The outcome words of attempts that succeeded; those of failures are `IssueError::WORDS`.
pub const ATTESTED: &str = "attested";
pub const RENEWED: &str = "renewed";

pub(super) struct Keeper<'a> {
    pub(super) config: &'a Config,
    pub(super) connector: &'a Connector,
    pub(super) store: &'a Store,
    pub(super) desk: &'a Desk,
    pub(super) metrics: &'a Metrics,
    pub(super) start: &'a Start,
    /// The CA knows the host key, as far as we know.
    enrolled: bool,
    /// Where the SVID in use stands; absent before the first and after an expiry.
    lineage: Option<Lineage>,
    /// An attempt whose answer is not known.
    open: Option<Attempt>,
    /// Which CA address is next.
    turn: usize,
    /// Told of each SVID that may vouch for a workload's own.
    vouches: watch::Sender<Option<Vouching>>,
    /// The present roots, if they had to be found without an SVID that the CA still takes.
    learned: Option<Arc<TrustBundle>>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        config: &'a Config,
        connector: &'a Connector,
        store: &'a Store,
        desk: &'a Desk,
        metrics: &'a Metrics,
        start: &'a Start,
        vouches: watch::Sender<Option<Vouching>>,
    ) -> Self {
        Self {
            config,
            connector,
            store,
            desk,
            metrics,
            start,
            enrolled: start.enrolled,
            lineage: None,
            open: None,
            turn: 0,
            vouches,
            learned: None,
        }
    }

    /// Runs until the process ends, or until it is clear that it can never have an identity.
    /// `renew_now` asks for a renewal before its time.
    pub(super) async fn run(&mut self, renew_now: &Notify) -> Result<Infallible, StartError> {
        let mut life = None;
        let mut waits = renew::waits(life);
        loop {
            let within = renew::attempt_deadline(life);
            let attempted = self.attempt(within).await;
            if attempted.as_ref().is_err_and(IssueError::may_be_rotation) {
                self.look_for_roots(within).await;
            }
            match attempted {
                Ok((snapshot, outcome)) => {
                    let schedule = self.taken_over(&snapshot, outcome);
                    life = Some(schedule.life());
                    waits = renew::waits(life);
                    self.rest(&schedule, renew_now).await;
                }
                Err(error) => {
                    self.metrics.renewal(error.word());
                    tracing::warn!(outcome = error.word(), "no SVID: {error}");
                    if self.next_step(error)? == NextStep::Wait {
                        sleep(waits.next().expect("the waits have no end")).await;
                    }
                }
            }
        }
    }

    /// One connection, one request, one answer, verified and published.
    async fn attempt(
        &mut self,
        within: Duration,
    ) -> Result<(Arc<Snapshot>, &'static str), IssueError> {
        let deadline = Instant::now() + within;
        let current = self.store.usable(self.connector.clock.unix()).ok();
        let wanted = self.right(current.is_some());
        let renewal = matches!(wanted, Right::Host(Some(_)));
        let attempt = match self.open.take().filter(|open| open.right == wanted) {
            Some(open) => open,
            None => Attempt::new(wanted)?,
        };
        // Stays open unless an answer says otherwise, also if this future is dropped.
        let attempt = self.open.insert(attempt);
        let shown = current.as_deref().filter(|_| renewal);
        let ca = self.config.cas[self.turn % self.config.cas.len()];
        let trusts = trusts(self.learned.as_ref(), self.start, self.store, self.config);
        let link = connect(self.connector, ca, &trusts, shown, within).await;
        let mut link = link.inspect_err(|_| self.turn = self.turn.wrapping_add(1))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let (host, evidence) = (&self.start.host, &self.config.evidence);
        let sent = attempt.send(&mut link, host, evidence, self.config.lifetime, left).await;
        // A CA that cannot answer now, such as one that is cut off from its store, may have a
        // neighbour that can: the very same request goes there.
        let response = sent.inspect_err(|error| {
            if error.leaves_open() {
                self.turn = self.turn.wrapping_add(1);
            }
        })?;
        let issued = issued(attempt, &response, &mut link).await?;
        // Whoever sees the SVID must already find a line to wait for, not one that is down.
        let raised = self.desk.expect_line();
        let published = self.store.publish_svid(issued, self.config.id.as_ref());
        let snapshot = published.inspect_err(|_| {
            if raised {
                self.desk.down();
            }
        })?;
        self.open = None;
        self.enrolled = true;
        self.learned = None;
        self.lineage = Some(response.lineage);
        let (lineage, vouching) = (response.lineage, Arc::clone(&snapshot));
        self.vouches.send_replace(Some(Vouching { snapshot: vouching, lineage }));
        Ok((snapshot, if renewal { RENEWED } else { ATTESTED }))
    }

    /// The CA may have rotated its root while we were not there to hear of it: then the way from the
    /// roots that we know to the present ones is asked for, and followed.
    async fn look_for_roots(&mut self, within: Duration) {
        let known = trusts(self.learned.as_ref(), self.start, self.store, self.config);
        let ca = self.config.cas[self.turn % self.config.cas.len()];
        let domain = &self.config.trust_domain;
        match succession::learn(self.connector, ca, &known, domain, within).await {
            Ok(None) => {}
            Ok(Some(found)) if self.takes_duty_back(&found) => {
                let why = Rejected::DutyTakenBack { generation: found.generation() };
                self.metrics.trust_update(TrustUpdate::DutyTakenBack);
                tracing::warn!("{why}");
            }
            // History that is true and old: a root that was gone back from may be in other hands.
            Ok(Some(found)) if self.held().is_some_and(|held| found.generation() <= held) => {
                tracing::warn!(
                    generation = found.generation(),
                    "the CA told an older history than the one that we hold; it is passed over"
                );
            }
            Ok(Some(found)) => {
                tracing::info!(
                    generation = found.generation(),
                    "followed the CA to its present roots"
                );
                let ours = self.store.load();
                if ours.is_some_and(|ours| !found.holds_root(ours.root())) {
                    // Our SVID is of a root that has gone; the host key alone gets another.
                    self.lineage = None;
                }
                self.learned = Some(found);
            }
            Err(error @ Unproven::Succession(SuccessionError::Older { .. })) => tracing::warn!(
                "{error}; if the CA was restored from a backup of before, remove the first line of \
                 bundle.pem in the state directory and start again"
            ),
            Err(error) => tracing::debug!("no way to other roots: {error}"),
        }
    }

    /// The newest generation that we know of, if we know any: also what an earlier run kept.
    fn held(&self) -> Option<u64> {
        let held = self.store.load().map(|snapshot| snapshot.bundle.generation());
        let learned = self.learned.as_ref().map(|learned| learned.generation());
        held.max(learned).max(self.start.bundle.as_ref().map(|kept| kept.generation()))
    }

    fn takes_duty_back(&self, found: &TrustBundle) -> bool {
        let held = self.store.load().map(|snapshot| Arc::clone(&snapshot.bundle));
        let held = held.or_else(|| self.start.bundle.clone());
        held.is_some_and(|held| proofs::takes_duty_back(&held, found))
    }

    /// How we prove ourselves this time: by the SVID in use, else by the host key, else by token.
    fn right(&self, usable: bool) -> Right {
        match (&self.start.token, self.lineage) {
            (_, Some(lineage)) if usable => Right::Host(Some(lineage)),
            (Some(token), _) if !self.enrolled => Right::Token(token.secret.clone()),
            _ => Right::Host(None),
        }
    }

    /// Counts, logs and keeps what has just been published; says when it is to be renewed.
    fn taken_over(&self, snapshot: &Snapshot, outcome: &'static str) -> Schedule {
        let (not_before, not_after) = (snapshot.svid.not_before(), snapshot.usable_until());
        self.metrics.renewal(outcome);
        self.metrics.svid(not_before, not_after);
        self.metrics.bundle_generation(snapshot.bundle.generation());
        self.metrics.deny_list_epoch(snapshot.deny.epoch());
        if let Err(error) = self.start.file.save(&snapshot.bundle) {
            tracing::error!("the trust bundle was not kept for the next start: {error}");
        }
        let now = self.connector.clock.unix();
        let schedule = Schedule::new(Instant::now(), now, not_before, not_after, uniform());
        tracing::info!(
            outcome,
            id = %snapshot.svid.id(),
            serial = %snapshot.svid.serial(),
            not_after,
            renewal_in_s = (schedule.renew_at() - Instant::now()).as_secs(),
            "SVID taken over"
        );
        schedule
    }

    /// Until the renewal is due, is asked for, or the wall clock says that it is too late.
    async fn rest(&self, schedule: &Schedule, renew_now: &Notify) {
        loop {
            let check = Instant::now() + CLOCK_CHECK_EVERY;
            tokio::select! {
                () = sleep_until(schedule.renew_at().min(check)) => {}
                () = renew_now.notified() => return,
            }
            let usable = self.store.usable(self.connector.clock.unix());
            let expired = matches!(usable, Err(NoIdentity::Expired { .. }));
            if expired || Instant::now() >= schedule.renew_at() {
                return;
            }
        }
    }

    /// What a failure changes, and whether anything is left to try.
    fn next_step(&mut self, error: IssueError) -> Result<NextStep, StartError> {
        if !error.leaves_open() {
            self.open = None;
        }
        if let (
            IssueError::Refused { reason: Reason::Denied | Reason::Withdrawn, said },
            Some(workload),
        ) = (&error, &self.config.workload)
        {
            // What is denied to us is denied to whom we vouch for.
            workload.withdraw(said);
        }
        let first = self.store.load().is_none();
        let state = || self.config.state_dir.clone();
        match error {
            IssueError::Refused { reason: Reason::HostUnknown, said } if first => {
                if self.start.token.is_none() || !self.enrolled {
                    return Err(StartError::HostUnknown { state: state(), said });
                }
                // The key was made in a run whose token never got through.
                self.enrolled = false;
                return Ok(NextStep::AtOnce);
            }
            IssueError::Refused { reason: Reason::Token, said } if first => {
                return Err(StartError::TokenRefused { said });
            }
            IssueError::Refused { reason: Reason::Denied, said } if first => {
                return Err(StartError::HostDenied { state: state(), said });
            }
            IssueError::Refused { reason: Reason::LineageUnknown, .. } => {
                self.lineage = None;
                return Ok(NextStep::Wait);
            }
            // The CA has issued and we cannot use it: going on from the SVID in use would look
            // like a copy of it. The host key alone begins anew.
            IssueError::Rejected(_) | IssueError::Malformed(_) => {
                self.enrolled = true;
                self.lineage = None;
            }
            _ => {}
        }
        Ok(NextStep::Wait)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NextStep {
    AtOnce,
    Wait,
}

/// By what the CA may be recognised, in this order. The token's hash counts only until there is an
/// SVID: it heals a bundle file that is older than the CA's roots.
fn trusts(
    learned: Option<&Arc<TrustBundle>>,
    start: &Start,
    store: &Store,
    config: &Config,
) -> Vec<Trust> {
    if let Some(learned) = learned {
        return vec![Trust::Bundle(Arc::clone(learned))];
    }
    if let Some(snapshot) = store.load() {
        return vec![Trust::Bundle(Arc::clone(&snapshot.bundle))];
    }
    let held = start.bundle.as_ref().map(|bundle| Trust::Bundle(Arc::clone(bundle)));
    let told = start
        .token
        .as_ref()
        .map(|token| Trust::Hash(token.bundle_hash, Some(config.trust_domain.clone())));
    held.into_iter().chain(told).collect()
}

async fn connect(
    connector: &Connector,
    ca: Endpoint,
    trusts: &[Trust],
    shown: Option<&Snapshot>,
    within: Duration,
) -> Result<Link, ConnectError> {
    let deadline = Instant::now() + within;
    let (last, others) = trusts.split_last().expect("a start without bundle and token is refused");
    for trust in others {
        match connector.connect(ca, trust, shown, within).await {
            Err(ConnectError::NotTheCa { .. }) => {}
            outcome => return outcome,
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    connector.connect(ca, last, shown, left).await
}

/// The answer to this attempt, with a bundle for which the roots by which we knew the CA vouch.
pub(super) async fn issued(
    attempt: &Attempt,
    response: &IssueResponse,
    link: &mut Link,
) -> Result<Issued, Rejected> {
    let held = link.bundle.clone().ok_or(Rejected::NoSvid)?;
    let (seen, expected) = (response.bundle.trust_domain(), held.trust_domain());
    if seen != expected {
        let (seen, expected) = (seen.clone(), expected.clone());
        return Err(Rejected::OtherTrustDomain { seen, expected });
    }
    let generation = response.bundle.generation();
    let confirmed = succession::confirm(&mut link.stub, &held, response.bundle.clone()).await;
    let confirmed =
        confirmed.map_err(|why| Rejected::Unproven { generation, why: why.to_string() })?;
    Ok(Issued {
        chain: response.chain.clone(),
        key: Arc::clone(&attempt.key),
        spki: *attempt.csr.key(),
        bundle: Arc::new(confirmed),
        known: held,
        log_proof: response.log_proof.as_slice().into(),
    })
}

/// A uniform draw from 0..1.
pub(super) fn uniform() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter; everything that needs it for safety fails by itself.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}
