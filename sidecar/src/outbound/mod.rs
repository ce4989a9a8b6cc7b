//! The outbound story: the workload dialled somebody, the rules brought it here, and its bytes
//! leave only to exactly whom it meant. Called by the workers in `app`, once a connection.
//!
//! Read `depart` and then `one_use` downward: that is the whole story.
//!
//! Never: plaintext to a meshed destination but this very pod, whatever fails; a second offer with less; a byte of
//! the workload before the peer's identity and address were compared with what was expected.

// SPDX-License-Identifier: Apache-2.0

mod mesh;
mod pool;
mod reach;
mod route;
mod sweep;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::addr::{Clock, Endpoint, OrigDst};
use crate::credentials::{Desk, Store};
use crate::directory::{Directory, Learned, Plain, Protocol, Running, Services, Target};
use crate::drain::{Closing, Door, Place};
use crate::metrics::{Direction, Metrics, Security};
use crate::net::{Accepted, Dialer, Origin, OwnAddresses, reset};
use crate::proofs::Judge;
use crate::relay::plain;
use crate::report::{Outcome, Report, Roster};
use crate::services::ServiceDesk;
use crate::wire::Budget;
use mesh::unreached;
pub use pool::Pool;
use route::Way;
pub use sweep::sweep;

/// The time limits of the outbound side.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub handshake: Duration,
    /// How long the acceptor may take to answer `open`: its own dial included.
    pub answer: Duration,
    pub idle: Duration,
    /// How long a running use may outlive its peer's SVID.
    pub use_after_expiry: Duration,
    /// How long an idle mesh connection waits for its next use.
    pub keep: Duration,
    /// The age at which a mesh connection carries no further use.
    pub max_age: Duration,
    /// Bounds of one mesh connection.
    pub budget: Budget,
}

/// Everything the outbound side looks at; one a worker, sharing what is shared.
pub struct Outbound {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub roster: Roster,
    pub door: Arc<Door>,
    pub clock: Clock,
    pub store: Arc<Store>,
    pub desk: Arc<Desk>,
    pub learned: Arc<ArcSwap<Learned>>,
    pub service_desk: Arc<ServiceDesk>,
    pub services: Arc<ArcSwap<Services>>,
    pub directory: Arc<ArcSwap<Directory>>,
    /// Bumped whenever credentials, bundle, deny list or configuration change.
    pub changes: watch::Receiver<u64>,
    pub own: Arc<ArcSwap<OwnAddresses>>,
    pub own_ports: Vec<u16>,
    pub dialer: Dialer,
    /// Judges the log proofs of peers.
    pub judge: Arc<Judge>,
    pub pool: Pool,
}

/// A workload's connection, and the peer that it is for.
struct Call {
    workload: TcpStream,
    target: Target,
    /// Counts this use at the endpoint of a learned service.
    running: Option<Running>,
    wanted: Wanted,
    report: Report,
}

/// What a workload wanted, for as long as it may have to be looked for.
struct Wanted {
    to: OrigDst,
    spin: u32,
    place: Place,
}

/// One connection from its accept to its ending. A future that lasts as long as a connection holds
/// only what its use needs: all before it lies in a box that is gone by then, and so does what comes
/// after it.
pub fn serve(outbound: Rc<Outbound>, accepted: Accepted, spin: u32) -> impl Future<Output = ()> {
    let departure = Box::pin(depart(Rc::clone(&outbound), accepted, spin));
    async move {
        let Some(mut call) = departure.await else { return };
        match outbound.one_use(&mut call).await {
            Ok(used) => Box::pin(outbound.end(call, used)).await,
            Err(why) => unreached(call.workload, call.report, why),
        }
    }
}

/// The story up to the use of a mesh connection; whatever goes elsewhere is served here to its end.
async fn depart(outbound: Rc<Outbound>, accepted: Accepted, spin: u32) -> Option<Call> {
    let Accepted { stream, from, origin } = accepted;
    let mut report = Report::open(&outbound.metrics, &outbound.roster, Direction::Outbound, from);
    let Some(place) = outbound.door.enter() else {
        return cut(stream, report, Outcome::Overloaded);
    };
    let to = match outbound.destination(origin) {
        Ok(to) => to,
        Err(outcome) => return cut(stream, report, outcome),
    };
    report.destination(to);
    match outbound.way(to, spin).await {
        Ok(Way::Mesh(target, running)) if target.protocol == Protocol::Myelin1 => {
            report.security(Security::Mesh);
            let wanted = Wanted { to, spin, place };
            return Some(Call { workload: stream, target, running, wanted, report });
        }
        Ok(Way::Mesh(target, _)) => {
            report.security(Security::PlainMtls);
            Box::pin(outbound.plain_mtls(stream, &target, report)).await;
        }
        Ok(Way::Plain(why)) => Box::pin(outbound.outside(stream, to, &why, report)).await,
        Err((outcome, why)) => {
            report.detail(why);
            cut(stream, report, outcome);
        }
    }
    None
}

impl Outbound {
    fn destination(&self, origin: Origin) -> Result<OrigDst, Outcome> {
        let Origin::Redirected(to) = origin else { return Err(Outcome::Loop) };
        let ours = self.own.load().contains(to.ip()) || to.ip().is_loopback();
        if ours && self.own_ports.contains(&to.port()) { Err(Outcome::Loop) } else { Ok(to) }
    }

    /// What is not meshed leaves as it is, counted and named; so does what comes back to this pod.
    async fn outside(&self, mut workload: TcpStream, to: OrigDst, why: &Plain, report: Report) {
        let mut report = report;
        match why {
            Plain::Exception(name) => {
                report.security(Security::Exception);
                report.detail(name);
            }
            Plain::OutsideMesh => report.security(Security::OutsideMesh),
            Plain::OwnPod(_) => report.security(Security::OwnPod),
        }
        let endpoint = if let Plain::OwnPod(endpoint) = why { *endpoint } else { Endpoint(to.0) };
        let mut other = match self.dialer.dial(endpoint).await {
            Ok(other) => other,
            Err(error) => {
                let outcome = Outcome::from(&error);
                report.detail(error);
                cut(workload, report, outcome);
                return;
            }
        };
        let meter = report.bytes();
        let cut_short = async {
            self.door.closed(Closing::Cut).await;
            (Outcome::Drained, String::new())
        };
        let ending = plain(&mut workload, &mut other, &meter, self.config.idle, cut_short);
        let outcome = report.plain_ending(ending.await);
        if outcome != Outcome::Completed {
            reset(workload);
            reset(other);
        }
        report.finish(outcome);
    }
}

/// Ends a connection with a reset and its word: there is no call.
fn cut(stream: TcpStream, report: Report, outcome: Outcome) -> Option<Call> {
    reset(stream);
    report.finish(outcome);
    None
}
