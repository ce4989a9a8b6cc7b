//! Which way a destination lies: through the mesh, or outside of it. The directory decides; what
//! it does not know yet is asked of the CA and, where there is one, of the controller. Called by
//! `serve`.
//!
//! Never: takes silence for permission inside the mesh ranges.

// SPDX-License-Identifier: Apache-2.0

use std::pin::pin;

use tokio::time::Instant;

use super::{Call, Outbound};
use crate::addr::OrigDst;
use crate::credentials::Answer;
use crate::directory::{Otherwise, Plain, Route, Running, Target};
use crate::metrics::Verdict;
use crate::report::Outcome;
use crate::services::Asked;

/// Where the workload's bytes go.
pub(super) enum Way {
    Mesh(Target, Option<Running>),
    Plain(Plain),
}

/// What came of the questions.
struct Answers {
    ca: Option<Answer>,
    controller: Option<Asked>,
}

impl Outbound {
    pub(super) async fn way(&self, to: OrigDst, spin: u32) -> Result<Way, (Outcome, String)> {
        let way = self.find_way(to, spin).await;
        self.metrics.verdict(match &way {
            Ok(Way::Mesh(..)) => Verdict::Mesh,
            Ok(Way::Plain(Plain::Exception(_))) => Verdict::Exception,
            Ok(Way::Plain(Plain::OutsideMesh)) => Verdict::OutsideMesh,
            Ok(Way::Plain(Plain::OwnPod(_))) => Verdict::OwnPod,
            Err((Outcome::Unbound, _)) => Verdict::Unbound,
            Err(_) => Verdict::Unavailable,
        });
        way
    }

    async fn find_way(&self, to: OrigDst, spin: u32) -> Result<Way, (Outcome, String)> {
        let otherwise = match self.known_way(to, spin) {
            Ok(known) => return known,
            Err(otherwise) => otherwise,
        };
        let answers = self.ask(to, spin, otherwise).await;
        // The answers, if there are any, have been learned by now: ask the directory once more.
        match (self.known_way(to, spin), otherwise) {
            (Ok(known), _) => known,
            (Err(_), Otherwise::Plain) => Ok(Way::Plain(Plain::OutsideMesh)),
            (Err(_), Otherwise::Refuse) => Err(no_way(to, &answers)),
        }
    }

    /// The way by what is known, or what to do if nobody knows more.
    fn known_way(
        &self,
        to: OrigDst,
        spin: u32,
    ) -> Result<Result<Way, (Outcome, String)>, Otherwise> {
        let way = match self.route(to, spin) {
            Route::Mesh(target) => Ok(Way::Mesh(target, None)),
            // What comes back to this pod never leaves it, like all that it says to itself.
            Route::Service(target, _) if self.is_this_pod(&target) => {
                Ok(Way::Plain(Plain::OwnPod(target.endpoint)))
            }
            Route::Service(target, spot) => Ok(Way::Mesh(target, Some(Running::new(spot)))),
            Route::Unserved { name, unmeshed } => {
                Err((Outcome::Unbound, unserved(&name, unmeshed)))
            }
            Route::Plain(plain) => Ok(Way::Plain(plain)),
            Route::Ask { otherwise } => return Err(otherwise),
        };
        Ok(way)
    }

    /// Whether an endpoint is ourselves: its identity is ours and its address on an interface of ours.
    /// Whoever can write endpoints cannot name this pod's address for a service of another identity:
    /// that goes the way of the mesh, and ends in a refusal.
    fn is_this_pod(&self, target: &Target) -> bool {
        let endpoint = target.endpoint;
        let is_us = || {
            let ours = self.store.load();
            ours.is_some_and(|ours| target.expected.ids.iter().any(|id| id == ours.id()))
        };
        self.own.load().is_here(endpoint.ip())
            && !self.own_ports.contains(&endpoint.port())
            && is_us()
    }

    /// Asks whoever may know, both at once; the first answer that shows a way is enough.
    async fn ask(&self, to: OrigDst, spin: u32, otherwise: Otherwise) -> Answers {
        let mut ca = pin!(self.desk.ask(to.ip(), to.port()));
        // A service's address lies inside the mesh ranges; what does not is nobody's to redirect.
        if otherwise == Otherwise::Plain {
            return Answers { ca: Some(ca.await), controller: None };
        }
        let mut controller = pin!(self.service_desk.ask(to.0));
        let mut answers = Answers { ca: None, controller: None };
        while answers.ca.is_none() || answers.controller.is_none() {
            tokio::select! {
                answer = &mut ca, if answers.ca.is_none() => answers.ca = Some(answer),
                asked = &mut controller, if answers.controller.is_none() => {
                    answers.controller = Some(asked);
                }
            }
            if self.known_way(to, spin).is_ok() {
                break;
            }
        }
        answers
    }

    fn route(&self, to: OrigDst, spin: u32) -> Route {
        let (learned, services) = (self.learned.load(), self.services.load());
        self.directory.load().route(to, &learned, &services, spin, Instant::now)
    }

    /// Where else a use may go that nobody has taken: another endpoint of its service.
    pub(super) fn elsewhere(&self, call: &Call, tries: u32) -> Option<(Target, Option<Running>)> {
        let (wanted, tried) = (&call.wanted, &call.target);
        let spin = wanted.spin.wrapping_add(tries);
        let (target, running) = match self.route(wanted.to, spin) {
            Route::Mesh(target) => (target, None),
            // One connection through the mesh does not become one within the pod.
            Route::Service(target, _) if self.own.load().contains(target.endpoint.ip()) => {
                return None;
            }
            Route::Service(target, spot) => (target, Some(Running::new(spot))),
            _ => return None,
        };
        let is_other = target.endpoint != tried.endpoint && target.protocol == tried.protocol;
        is_other.then_some((target, running))
    }

    /// Nobody was reached at a service's endpoint: it is left alone for a while.
    pub(super) fn unreached(&self, call: &Call) {
        if let Some(running) = &call.running {
            self.services.load().unreached(running.spot(), Instant::now());
        }
    }
}

impl Call {
    pub(super) fn reached(&self) {
        if let Some(running) = &self.running {
            running.spot().reached();
        }
    }
}

fn unserved(name: &str, unmeshed: u32) -> String {
    format!(
        "no endpoint of the service {name} serves in the mesh ({unmeshed} have no identity there); \
         see whether its pods are ready, and injected"
    )
}

/// The directories said that nobody is there, or said nothing at all.
fn no_way(to: OrigDst, answers: &Answers) -> (Outcome, String) {
    if answers.ca != Some(Answer::Learned) {
        let why = format!(
            "{to} is inside the mesh ranges and the CA's directory could not be asked who it is; \
             see whether the CA is up"
        );
        return (Outcome::DirectoryUnavailable, why);
    }
    match answers.controller {
        Some(Asked::Off | Asked::Answered) | None => {
            let why = format!(
                "{to} is inside the mesh ranges and no live SVID is bound to it; \
                 start its sidecar, or name it as an outbound.exception or outbound.peer"
            );
            (Outcome::Unbound, why)
        }
        Some(Asked::Unreachable | Asked::Silent | Asked::Busy) => {
            let why = format!(
                "{to} is inside the mesh ranges, no live SVID is bound to it, and no controller \
                 could be asked whether it is a service; see whether one is up"
            );
            (Outcome::DirectoryUnavailable, why)
        }
    }
}
