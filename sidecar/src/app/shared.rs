//! What all workers and the operator's side share: the swapped values, the door, the metrics. Made
//! once by `app::run`; each worker takes its own `Inbound` and `Outbound` from it.
//!
//! Never: a lock of its own on a connection's path; anything that is set twice except through its ArcSwap.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::addr::{Clock, ListenAddr};
use crate::credentials::{Desk, Store};
use crate::directory::{Directory, Learned, Services};
use crate::drain::Door;
use crate::inbound::{self, Inbound};
use crate::metrics::{Direction, Metrics, PeerLabel, Security};
use crate::net::{Dialer, OwnAddresses};
use crate::outbound::{self, Outbound, Pool};
use crate::policies::PolicyDesk;
use crate::proofs::Judge;
use crate::report::{Outcome, Roster};
use crate::services::ServiceDesk;

/// Where we listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listen {
    pub(super) inbound: ListenAddr,
    pub(super) outbound: ListenAddr,
    pub(super) ops: ListenAddr,
    /// Absent: nothing is probed through us.
    pub(super) probes: Option<ListenAddr>,
}

pub(super) struct Shared {
    pub(super) listen: Listen,
    pub(super) inbound_config: inbound::Config,
    pub(super) outbound_config: outbound::Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) door: Arc<Door>,
    pub(super) clock: Clock,
    pub(super) store: Arc<Store>,
    pub(super) desk: Arc<Desk>,
    pub(super) learned: Arc<ArcSwap<Learned>>,
    pub(super) service_desk: Arc<ServiceDesk>,
    pub(super) services: Arc<ArcSwap<Services>>,
    pub(super) policy_desk: Arc<PolicyDesk>,
    pub(super) directory: Arc<ArcSwap<Directory>>,
    pub(super) own: Arc<ArcSwap<OwnAddresses>>,
    pub(super) dialer: Dialer,
    pub(super) judge: Arc<Judge>,
    /// Bumped at each change that running uses are judged by again.
    pub(super) world: watch::Sender<u64>,
    pub(super) over: AtomicBool,
}

impl Shared {
    pub(super) fn inbound(&self, roster: &Roster) -> Inbound {
        Inbound {
            config: self.inbound_config,
            metrics: Arc::clone(&self.metrics),
            roster: roster.clone(),
            door: Arc::clone(&self.door),
            clock: self.clock.clone(),
            store: Arc::clone(&self.store),
            desk: Arc::clone(&self.desk),
            learned: Arc::clone(&self.learned),
            policy: Arc::clone(self.policy_desk.policy()),
            directory: Arc::clone(&self.directory),
            changes: self.world.subscribe(),
            own: Arc::clone(&self.own),
            own_ports: self.own_ports(),
            dialer: self.dialer,
            judge: Arc::clone(&self.judge),
        }
    }

    pub(super) fn outbound(&self, roster: &Roster) -> Outbound {
        Outbound {
            config: self.outbound_config,
            metrics: Arc::clone(&self.metrics),
            roster: roster.clone(),
            door: Arc::clone(&self.door),
            clock: self.clock.clone(),
            store: Arc::clone(&self.store),
            desk: Arc::clone(&self.desk),
            learned: Arc::clone(&self.learned),
            service_desk: Arc::clone(&self.service_desk),
            services: Arc::clone(&self.services),
            directory: Arc::clone(&self.directory),
            changes: self.world.subscribe(),
            own: Arc::clone(&self.own),
            own_ports: self.own_ports(),
            dialer: self.dialer,
            judge: Arc::clone(&self.judge),
            pool: Pool::new(self.outbound_config.keep, Arc::clone(&self.metrics)),
        }
    }

    /// Running uses are judged again.
    pub(super) fn world_changed(&self) {
        self.world.send_modify(|generation| *generation += 1);
    }

    /// A connection that was turned away before it could be looked at ends like any other.
    pub(super) fn out_of_descriptors(&self, direction: Direction) {
        let turned_away = self.metrics.connection(direction);
        let word = Outcome::Overloaded.word();
        turned_away.closed(word, Security::Unknown, &PeerLabel::none(), 0.0);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn own_ports(&self) -> Vec<u16> {
        let Listen { inbound, outbound, ops, probes } = self.listen;
        [inbound, outbound, ops].into_iter().chain(probes).map(ListenAddr::port).collect()
    }
}
