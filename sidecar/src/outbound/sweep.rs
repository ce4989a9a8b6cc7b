//! What happens to idle mesh connections between uses: a sweep each second and at each change of
//! the world, new ones made ready for endpoints that are hot, and the end of all when we leave.
//! `sweep` is started once a worker by `app`; `make_ready` is called after each use began.
//!
//! Never: on a workload's critical path; a word to anybody about a connection that could not be
//! made ready but a debug line and the handshake metric.

// SPDX-License-Identifier: Apache-2.0

use std::rc::Rc;
use std::time::Duration;

use super::Outbound;
use super::pool::Connection;
use super::reach::Unreached;
use crate::directory::Target;
use crate::drain::Closing;

/// How often the pool is looked through: a connection that its peer has ended is parted with
/// within a second, which is what a peer that leaves has to wait for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Keeps the pool in order until we leave.
pub async fn sweep(outbound: Rc<Outbound>) {
    let mut changes = outbound.changes.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    // The world ends with the process; the drain says when.
                    outbound.door.closed(Closing::Leaving).await;
                }
            }
            () = outbound.door.closed(Closing::Leaving) => {}
        }
        if outbound.door.is_leaving() {
            return outbound.pool.close();
        }
        let unix = outbound.clock.unix();
        let snapshot = outbound.store.usable(unix).ok();
        for (target, count) in outbound.pool.sweep(snapshot.as_deref(), unix) {
            outbound.make_ready(&target, count);
        }
    }
}

impl Outbound {
    /// Begins `count` handshakes with whom `target` names, for uses to come.
    pub(super) fn make_ready(self: &Rc<Self>, target: &Target, count: usize) {
        for _ in 0..count {
            let (outbound, target) = (Rc::clone(self), target.clone());
            tokio::task::spawn_local(async move { outbound.one_ready(&target).await });
        }
    }

    async fn one_ready(&self, target: &Target) {
        // A full house makes nothing ready for later.
        let made = match self.door.rest() {
            Some(rest) => self.warm(target).await.map(|held| (held, rest)),
            None => None,
        };
        self.pool.warmed(target.endpoint, made);
    }

    async fn warm(&self, target: &Target) -> Option<Connection> {
        let connected = tokio::select! {
            connected = self.connect(target) => connected,
            // Nobody who leaves waits for what he will not use.
            () = self.door.closed(Closing::Leaving) => return None,
        };
        let not_ready = |why: &Unreached| {
            let (endpoint, outcome) = (target.endpoint, why.outcome.word());
            tracing::debug!(%endpoint, outcome, detail = why.detail, "not made ready");
        };
        connected.inspect_err(not_ready).ok()
    }
}
