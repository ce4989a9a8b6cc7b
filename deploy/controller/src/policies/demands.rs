//! What a workload's ports demand, from all PeerAuthentications that are about it. Pure. Called by
//! `catalog` and `compile`.
//!
//! Never: leaves a port more open than the strictest of equally exact policies.

// SPDX-License-Identifier: Apache-2.0

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use myelin_identity::policy::{MAX_PORTS, Mode, PortView};

use super::authentication::{Authentication, Demand, stricter};

/// How exactly a policy says whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Mesh,
    Namespace,
    Target,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demands {
    /// Absent: the sidecar's own file decides.
    whole: Option<Mode>,
    ports: BTreeMap<u16, Demand>,
}

/// What applies, each with the most exact level that demands it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranked {
    whole: Option<(Level, Mode)>,
    ports: BTreeMap<u16, (Level, Demand)>,
    /// The most exact one that may be about any port.
    unread: Option<Level>,
}

impl Ranked {
    /// A port's own demand before that of all ports, the more exact level before the less exact one,
    /// the stricter of two equally exact ones.
    pub(super) fn add(&mut self, level: Level, policy: &Authentication) {
        if let Some(mode) = policy.mode {
            let before = *self.whole.get_or_insert((level, mode));
            self.whole = Some(more_exact(before, (level, mode), stricter));
        }
        for (port, demand) in &policy.ports {
            let before = self.ports.entry(*port).or_insert((level, *demand));
            *before = more_exact(*before, (level, *demand), Demand::stricter);
        }
        if policy.is_unread {
            self.unread = self.unread.max(Some(level));
        }
    }

    /// Whatever else applies: as strict as it can be.
    pub(super) fn add_unknown(&mut self) {
        self.unread = Some(Level::Target);
    }

    pub(super) fn demands(self) -> Demands {
        let Self { whole, ports, unread } = self;
        // As if it named each port, and demanded that it be strict.
        let demand = |(level, demand)| match Some(level) <= unread {
            true => Demand::STRICT,
            false => demand,
        };
        Demands {
            whole: unread.map(|_| Mode::Strict).or_else(|| whole.map(|(_, mode)| mode)),
            ports: ports.into_iter().map(|(port, it)| (port, demand(it))).collect(),
        }
    }
}

impl Demands {
    /// What is right whichever of the two is. Where one of them leaves it to the sidecar's own file,
    /// only the other's strictness counts.
    pub(super) fn either(&self, other: &Self) -> Self {
        let only_strict = |mode: &Mode| *mode == Mode::Strict;
        let whole = match (self.whole, other.whole) {
            (Some(one), Some(other)) => Some(stricter(one, other)),
            (one, other) => one.or(other).filter(only_strict),
        };
        let named: BTreeSet<u16> = self.ports.keys().chain(other.ports.keys()).copied().collect();
        let both = |port: u16| match (self.at(port), other.at(port)) {
            (Some(one), Some(other)) => Some((port, one.stricter(other))),
            (one, other) => one.or(other).filter(|it| only_strict(&it.mode)).map(|it| (port, it)),
        };
        Self { whole, ports: named.into_iter().filter_map(both).collect() }
    }

    fn at(&self, port: u16) -> Option<Demand> {
        let whole = self.whole.map(|mode| Demand { mode, ..Demand::STRICT });
        self.ports.get(&port).copied().or(whole)
    }

    /// As a sidecar is told. `true`: there are more ports than fit, so all others are strict.
    pub(super) fn told(&self) -> (Option<Mode>, BTreeMap<u16, PortView>, bool) {
        let is_over = self.ports.len() > MAX_PORTS;
        let view = |(port, demand): (&u16, &Demand)| {
            let Demand { mode, server_first, workload_tls } = *demand;
            (*port, PortView { mode: Some(mode), server_first, workload_tls })
        };
        let ports = self.ports.iter().take(MAX_PORTS).map(view).collect();
        (if is_over { Some(Mode::Strict) } else { self.whole }, ports, is_over)
    }
}

fn more_exact<T: Copy>(
    before: (Level, T),
    now: (Level, T),
    stricter: impl FnOnce(T, T) -> T,
) -> (Level, T) {
    match before.0.cmp(&now.0) {
        Ordering::Less => now,
        Ordering::Equal => (now.0, stricter(before.1, now.1)),
        Ordering::Greater => before,
    }
}
