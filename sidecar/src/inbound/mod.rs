//! The inbound story: a peer dialled a port of this pod, the rules brought it here, and it reaches
//! the workload only with a proof that it may. Called by the workers in `app`, once a connection.
//!
//! Read `arrive` and then `uses` downward: that is the whole story.
//!
//! Never: plaintext to the workload in strict mode, a dial without `Authorized`, a dial to loopback
//! or to anything but the address that was captured when the connection was accepted.

// SPDX-License-Identifier: Apache-2.0

mod detecting;
mod judge;
mod uses;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use myelin_identity::verify::Peer;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::addr::{Clock, OrigDst, PeerAddr};
use crate::credentials::{Desk, Snapshot, Store};
use crate::directory::{Directory, Learned};
use crate::drain::Door;
use crate::metrics::{Direction, Metrics, Security};
use crate::net::{Accepted, Dialer, Origin, OwnAddresses, reset};
use crate::policy::{Demand, Policy};
use crate::proofs::{Judge, NotLogged, Standing};
use crate::relay::{Bare, plain};
use crate::report::{Outcome, Report, Roster};
use crate::tls::{self, Deadline, Session};
use detecting::Spoken;
use uses::{After, Connection};

/// The time limits of the inbound side.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub handshake: Duration,
    pub detect: Duration,
    pub idle: Duration,
    /// How long a recycled connection may wait for its next use.
    pub keep: Duration,
    /// How long a running use may outlive its peer's SVID.
    pub use_after_expiry: Duration,
    /// The age at which a mesh connection carries no further use.
    pub max_age: Duration,
    /// Bounds of one mesh connection.
    pub budget: crate::wire::Budget,
}

/// Everything the inbound side looks at; one a worker, sharing what is shared.
pub struct Inbound {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub roster: Roster,
    pub door: Arc<Door>,
    pub clock: Clock,
    pub store: Arc<Store>,
    pub desk: Arc<Desk>,
    pub learned: Arc<ArcSwap<Learned>>,
    pub policy: Arc<ArcSwap<Policy>>,
    pub directory: Arc<ArcSwap<Directory>>,
    /// Bumped whenever credentials, bundle, deny list or policy change.
    pub changes: watch::Receiver<u64>,
    pub own: Arc<ArcSwap<OwnAddresses>>,
    pub own_ports: Vec<u16>,
    pub dialer: Dialer,
    /// Judges the log proofs of peers.
    pub judge: Arc<Judge>,
}

/// What stays the same for all uses of one connection.
#[derive(Clone, Copy)]
struct Stage {
    from: PeerAddr,
    to: OrigDst,
    /// Our own credential generation at its handshake.
    generation: u64,
}

/// Who is at the other end of a connection, and what its log proof came to.
struct Guest {
    peer: Arc<Peer>,
    /// Boxed: rare, and larger than all the rest.
    logged: Result<Standing, Box<NotLogged>>,
}

/// One connection from its accept to its ending. A future that lasts as long as a connection holds
/// only what its uses need: all before them lies in a box that is gone by then.
pub fn serve(inbound: Rc<Inbound>, accepted: Accepted) -> impl Future<Output = ()> {
    let arrival = Box::pin(arrive(Rc::clone(&inbound), accepted));
    async move {
        let Some(mut connection) = arrival.await else { return };
        match inbound.uses(&mut connection).await {
            After::Reusable | After::Closed => {}
            After::Cut => reset(connection.link.into_records().into_tcp()),
        }
    }
}

/// The story up to the first use of a mesh connection; whatever else comes in is served here to its
/// end.
async fn arrive(inbound: Rc<Inbound>, accepted: Accepted) -> Option<Connection> {
    let Accepted { stream, from, origin } = accepted;
    let mut report = Report::open(&inbound.metrics, &inbound.roster, Direction::Inbound, from);
    let Some(place) = inbound.door.enter() else {
        return cut(stream, report, Outcome::Overloaded);
    };
    let to = match inbound.destination(origin) {
        Ok(to) => to,
        Err(outcome) => return cut(stream, report, outcome),
    };
    report.destination(to);
    let demand = inbound.policy.load().demand(to.port(), inbound.clock.unix());
    if demand == Demand::Pending {
        return cut(stream, report, Outcome::PolicyPending);
    }
    if let Demand::Permissive { .. } = demand {
        match Box::pin(inbound.listen_first(&stream, from, demand)).await {
            Ok(Spoken::Mesh) => {}
            Ok(Spoken::Plaintext) => {
                Box::pin(inbound.permit_plaintext(stream, from, to, report)).await;
                return None;
            }
            Err(outcome) => return cut(stream, report, outcome),
        }
    }
    let snapshot = match inbound.store.usable(inbound.clock.unix()) {
        Ok(snapshot) => snapshot,
        Err(none) => {
            report.detail(&none);
            return cut(stream, report, Outcome::NoIdentity(none.word()));
        }
    };
    let began = Instant::now();
    let policy = inbound.policy.load_full();
    let declared = policy.plain_mtls(to.port()).map(|plain| plain.alpn.as_deref());
    let deadline = Deadline(inbound.config.handshake);
    match Box::pin(tls::accept(stream, &snapshot.tls, declared, deadline)).await {
        Ok(session) => {
            report.handshake("ok", session.facts, began);
            report.peer(&session.peer.id);
            let stage = Stage { from, to, generation: snapshot.generation };
            if session.speaks_myelin() {
                report.security(Security::Mesh);
                inbound.greet(session, &snapshot, stage, place, report).await
            } else {
                report.security(Security::PlainMtls);
                Box::pin(inbound.plain_mtls(session, &snapshot, stage, report)).await;
                None
            }
        }
        Err(error) => {
            let outcome = Outcome::from(&error);
            if outcome.word() == "plaintext_refused" {
                inbound.metrics.plaintext_refused(Direction::Inbound);
            }
            report.handshake(outcome.word(), tls::Facts::NONE, began);
            report.detail(error);
            report.finish(outcome);
            None
        }
    }
}

impl Inbound {
    /// Where a redirected connection meant to go, if that is ours to dial.
    fn destination(&self, origin: Origin) -> Result<OrigDst, Outcome> {
        let Origin::Redirected(to) = origin else { return Err(Outcome::Loop) };
        if self.own_ports.contains(&to.port()) {
            return Err(Outcome::Loop);
        }
        if !self.own.load().contains(to.ip()) {
            return Err(Outcome::BadDestination);
        }
        Ok(to)
    }

    /// A declared peer: one use, its bytes as they are, the same judgement, but for the log proof
    /// that it has no way to show.
    async fn plain_mtls(
        &self,
        session: Session,
        snapshot: &Snapshot,
        stage: Stage,
        mut report: Report,
    ) {
        let Session { records, peer, .. } = session;
        // The port's own declaration let it in.
        let logged = self.judge.plain_mtls(snapshot.trust.view(), &*peer, true, Direction::Inbound);
        let guest = Guest { peer, logged: logged.map_err(Box::new) };
        let mut carrier = Bare::new(records);
        let workload = match self.admit(&guest, &stage).await {
            Ok(workload) => workload,
            Err(refusal) => {
                report.detail(&refusal.detail);
                cut(carrier.into_records().into_tcp(), report, refusal.outcome);
                return;
            }
        };
        let ending = self.relay(&mut carrier, &workload, &guest, &stage, &report).await;
        let outcome = report.ending(&ending);
        if outcome != Outcome::Completed {
            reset(workload);
            reset(carrier.into_records().into_tcp());
        }
        report.finish(outcome);
    }

    /// Permissive mode only: plaintext, while policy permits it to this port from there.
    async fn permit_plaintext(
        &self,
        mut stream: TcpStream,
        from: PeerAddr,
        to: OrigDst,
        mut report: Report,
    ) {
        report.security(Security::Permissive);
        let mut workload = match self.admit_plaintext(from, to).await {
            Ok(workload) => workload,
            Err(refusal) => {
                report.detail(&refusal.detail);
                cut(stream, report, refusal.outcome);
                return;
            }
        };
        let meter = report.bytes();
        let over = self.plaintext_over(from, to);
        let ending = plain(&mut workload, &mut stream, &meter, self.config.idle, over);
        let outcome = report.plain_ending(ending.await);
        if outcome != Outcome::Completed {
            reset(workload);
            reset(stream);
        }
        report.finish(outcome);
    }
}

/// Ends a connection with a reset and its word: nothing stands.
fn cut(stream: TcpStream, report: Report, outcome: Outcome) -> Option<Connection> {
    reset(stream);
    report.finish(outcome);
    None
}
