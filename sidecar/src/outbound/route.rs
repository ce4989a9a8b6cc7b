//! Which way a destination lies: through the mesh, or outside of it. The directory decides; what
//! it does not know yet is asked of the CA. Called by `serve`.
//!
//! Never: takes silence for permission inside the mesh ranges.

// SPDX-License-Identifier: Apache-2.0

use super::{Call, Outbound};
use crate::addr::OrigDst;
use crate::credentials::Answer;
use crate::directory::{Otherwise, Plain, Route, Target};
use crate::metrics::Verdict;
use crate::report::Outcome;

/// Where the workload's bytes go.
pub(super) enum Way {
    Mesh(Target),
    Plain(Plain),
}

impl Outbound {
    pub(super) async fn way(&self, to: OrigDst, spin: u32) -> Result<Way, (Outcome, String)> {
        let way = self.find_way(to, spin).await;
        self.metrics.verdict(match &way {
            Ok(Way::Mesh(_)) => Verdict::Mesh,
            Ok(Way::Plain(Plain::Exception(_))) => Verdict::Exception,
            Ok(Way::Plain(Plain::OutsideMesh)) => Verdict::OutsideMesh,
            Err((Outcome::Unbound, _)) => Verdict::Unbound,
            Err(_) => Verdict::Unavailable,
        });
        way
    }

    async fn find_way(&self, to: OrigDst, spin: u32) -> Result<Way, (Outcome, String)> {
        let route = self.directory.load().route(to, &self.learned.load(), spin);
        let otherwise = match route {
            Route::Mesh(target) => return Ok(Way::Mesh(target)),
            Route::Plain(plain) => return Ok(Way::Plain(plain)),
            Route::Ask { otherwise } => otherwise,
        };
        let answered = self.desk.ask(to.ip(), to.port()).await;
        // The answer, if there is one, has been learned by now: ask the directory once more.
        match (self.directory.load().route(to, &self.learned.load(), spin), otherwise) {
            (Route::Mesh(target), _) => Ok(Way::Mesh(target)),
            (Route::Plain(plain), _) => Ok(Way::Plain(plain)),
            (Route::Ask { .. }, Otherwise::Plain) => Ok(Way::Plain(Plain::OutsideMesh)),
            (Route::Ask { .. }, Otherwise::Refuse) => Err(no_way(to, answered == Answer::Learned)),
        }
    }
}

impl Outbound {
    /// Where else a use may go that nobody has taken: another endpoint of its service.
    pub(super) fn elsewhere(&self, call: &Call, tries: u32) -> Option<Target> {
        let (wanted, tried) = (&call.wanted, &call.target);
        let spin = wanted.spin.wrapping_add(tries);
        match self.directory.load().route(wanted.to, &self.learned.load(), spin) {
            Route::Mesh(target)
                if target.endpoint != tried.endpoint && target.protocol == tried.protocol =>
            {
                Some(target)
            }
            _ => None,
        }
    }
}

/// The directory said that nobody lives there, or said nothing at all.
fn no_way(to: OrigDst, answered: bool) -> (Outcome, String) {
    if answered {
        let why = format!(
            "{to} is inside the mesh ranges and no live SVID is bound to it; \
             start its sidecar, or name it as an outbound.exception or outbound.peer"
        );
        (Outcome::Unbound, why)
    } else {
        let why = format!(
            "{to} is inside the mesh ranges and the CA's directory could not be asked who it is; \
             see whether the CA is up"
        );
        (Outcome::DirectoryUnavailable, why)
    }
}
