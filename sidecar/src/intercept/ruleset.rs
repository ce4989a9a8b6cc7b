//! The ruleset as we think of it: sets, chains, rules made of named steps. A plan becomes one here;
//! `encode` turns it into netlink messages, `decode` reads one back from the kernel.
//!
//! Never: bytes, netlink, I/O.

// SPDX-License-Identifier: Apache-2.0

use super::plan::{Plan, Range};

/// The one table that is ours, in the family that holds IPv4 and IPv6 (`inet`).
pub(super) const TABLE: &str = "myelin";
const TABLE_COMMENT: &str = "written by myelin-sidecar intercept; see its show and remove";

/// nf_tables calls this priority `dstnat`: where destinations are rewritten, before any filter.
const DSTNAT: i32 = -100;
/// nf_tables calls this priority `filter`: after the rewriting.
const FILTER: i32 = 0;
/// nf_tables calls this priority `raw`: before connection tracking.
const RAW: i32 = -300;

/// Where connection tracking keeps what leaves directly, apart from what is redirected (zone 0): the
/// digits of the mark.
pub(super) const DIRECT_ZONE: u16 = 0x6d79;
/// The destination was rewritten (`IPS_DST_NAT`).
pub(super) const REDIRECTED: u32 = 1 << 5;

/// States of a connection that translation looks at: established 2, related 4, new 8
/// (`NF_CT_STATE_BIT`). What is left are invalid (1) and untracked (64).
pub(super) const TRACKED: u32 = 2 | 4 | 8;

/// Everything in our table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ruleset {
    pub(super) comment: Option<String>,
    pub(super) sets: Vec<Set>,
    pub(super) chains: Vec<Chain>,
}

/// A named set of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) elements: Vec<Range>,
}

/// What a set is keyed by, and what a rule looks up in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    DestinationV4,
    DestinationV6,
    DestinationPort,
    SocketUid,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) hook: HookPoint,
    pub(super) priority: i32,
    pub(super) accepts: bool,
    pub(super) rules: Vec<Rule>,
}

/// Where a chain is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookPoint {
    Prerouting,
    Input,
    Output,
    /// A hook (or a chain without one) that we never write.
    Other(u32),
}

/// One rule: matches first, then the counter, then what happens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rule {
    pub(super) steps: Vec<Step>,
    pub(super) comment: Option<String>,
}

/// One step of a rule, each standing for the few kernel expressions that make it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    SocketUid(u32),
    Mark(u32),
    InInterface(String),
    OutInterface(String),
    Tcp,
    /// Only ever written as the guard of an address lookup, and then part of it.
    Ipv4,
    Ipv6,
    InSet {
        key: Key,
        set: String,
    },
    /// The connection is in one of these states (bits).
    CtState(u32),
    /// The connection has one of these properties (bits).
    CtStatus(u32),
    /// A TCP packet that is not the first of a connection.
    NotFirst,
    DestinationPort(u16),
    /// What this packet opens is tracked in a zone of its own.
    OriginalZone(u16),
    Counter {
        packets: u64,
        bytes: u64,
    },
    Return,
    Drop,
    Redirect(u16),
    /// An expression that we never write, by its name.
    Unknown(String),
}

impl Ruleset {
    /// The same with all counters at zero: how two rulesets are compared.
    pub(super) fn without_counts(&self) -> Self {
        let mut copy = self.clone();
        let rules = copy.chains.iter_mut().flat_map(|chain| &mut chain.rules);
        for step in rules.flat_map(|rule| &mut rule.steps) {
            if let Step::Counter { packets, bytes } = step {
                (*packets, *bytes) = (0, 0);
            }
        }
        copy
    }
}

impl Plan {
    /// The rules that carry this plan out. The order within a chain is part of the promise.
    pub(super) fn ruleset(&self) -> Ruleset {
        let (sets, direct) = self.outbound_bypasses();
        let inbound_ports = Set {
            name: "inbound_direct_ports".to_owned(),
            key: Key::DestinationPort,
            elements: singles(self.inbound_direct_ports.iter().copied()),
        };
        let mut chains = vec![
            self.outbound(direct.clone()),
            self.inbound(&inbound_ports),
            self.outbound_guard(direct),
            self.inbound_guard(&inbound_ports),
        ];
        chains.extend(self.outbound_zone());
        Ruleset {
            comment: Some(TABLE_COMMENT.to_owned()),
            sets: sets.into_iter().chain([inbound_ports]).collect(),
            chains,
        }
    }

    fn outbound(&self, mut rules: Vec<Rule>) -> Chain {
        rules.push(rule(
            [Step::Tcp],
            Step::Redirect(self.outbound_port),
            "to the outbound listener",
        ));
        nat_chain("outbound", HookPoint::Output, rules)
    }

    fn inbound(&self, direct_ports: &Set) -> Chain {
        let mut rules = inbound_bypasses(direct_ports);
        rules.push(rule([Step::Tcp], Step::Redirect(self.inbound_port), "to the inbound listener"));
        nat_chain("inbound", HookPoint::Prerouting, rules)
    }

    /// What translation cannot touch must not leave: see the room's header. The kernel's own reset
    /// in answer to an invalid packet is held back too; its receiver then times out instead.
    fn outbound_guard(&self, direct: Vec<Rule>) -> Chain {
        // Whoever else may have rewritten it, ours goes to our port.
        let ours = vec![Step::CtStatus(REDIRECTED), Step::DestinationPort(self.outbound_port)];
        let redirected = Rule {
            steps: ours.into_iter().chain([Step::Return]).collect(),
            comment: Some("redirected above".to_owned()),
        };
        let rules = [later(&[Step::CtState(TRACKED)]), redirected].into_iter();
        let rules = rules.chain(direct).chain([stray()]).collect();
        base_chain("outbound_guard", "filter", HookPoint::Output, FILTER, rules)
    }

    /// No connection begins at a workload that was not brought to the sidecar.
    fn inbound_guard(&self, direct_ports: &Set) -> Chain {
        let listener = Rule {
            steps: vec![Step::DestinationPort(self.inbound_port), Step::Return],
            comment: Some("to the inbound listener".to_owned()),
        };
        let rules = [later(&[]), listener].into_iter();
        let rules = rules.chain(inbound_bypasses(direct_ports)).chain([stray()]).collect();
        base_chain("inbound_guard", "filter", HookPoint::Input, FILTER, rules)
    }

    /// Connection tracking remembers a connection by addresses and ports for a while after its end.
    /// The next one from the same port to the same destination would inherit its translation: a
    /// workload's would leave directly after one of the sidecar's, the sidecar's would come back to
    /// it after one of a workload's. What bears the mark is therefore kept apart. Only the mark can
    /// tell: every packet of a connection bears it, but the last ones have no UID any more.
    fn outbound_zone(&self) -> Option<Chain> {
        let mark = Step::Mark(self.mark?.get());
        let apart = Rule {
            steps: vec![mark, Step::OriginalZone(DIRECT_ZONE)],
            comment: Some("tracked apart from what is redirected".to_owned()),
        };
        Some(base_chain("outbound_zone", "filter", HookPoint::Output, RAW, vec![apart]))
    }

    /// Who and what leaves directly: the sets that name it, and the rules that let it.
    fn outbound_bypasses(&self) -> (Vec<Set>, Vec<Rule>) {
        // Both must hold: the UID alone could be taken by a workload container that happens to run
        // as it, the mark alone by anybody with NET_RAW.
        let own: Vec<Step> = [Step::SocketUid(self.proxy_uid)]
            .into_iter()
            .chain(self.mark.map(|mark| Step::Mark(mark.get())))
            .collect();
        let lo = Step::OutInterface("lo".to_owned());
        let mut rules = vec![
            rule(own, Step::Return, "the sidecar's own traffic"),
            rule([lo], Step::Return, "loopback"),
        ];
        let uids = singles(self.direct_uids.iter().copied());
        let ports = singles(self.outbound_direct_ports.iter().copied());
        let candidates = [
            ("outbound_direct_uids", Key::SocketUid, uids, "excluded UIDs"),
            ("outbound_direct_v4", Key::DestinationV4, self.direct_v4.clone(), "excluded ranges"),
            (
                "outbound_direct_v6",
                Key::DestinationV6,
                self.direct_v6.clone(),
                "link-local and excluded ranges",
            ),
            ("outbound_direct_ports", Key::DestinationPort, ports, "excluded ports"),
        ];
        let mut sets = Vec::new();
        for (name, key, elements, comment) in candidates {
            if !elements.is_empty() {
                let set = Set { name: name.to_owned(), key, elements };
                rules.push(lookup(&set, comment));
                sets.push(set);
            }
        }
        (sets, rules)
    }
}

impl Key {
    /// Are elements of such a set ranges (first, then one past the last) rather than single keys?
    pub(super) const fn is_interval(self) -> bool {
        matches!(self, Self::DestinationV4 | Self::DestinationV6)
    }

    /// The highest key there is.
    pub(super) const fn highest(self) -> u128 {
        match self {
            Self::DestinationV4 | Self::SocketUid => u32::MAX as u128,
            Self::DestinationV6 => u128::MAX,
            Self::DestinationPort => u16::MAX as u128,
        }
    }
}

/// Passed by nearly every packet, so it stands first and does not count: a guard judges the first
/// packet of a connection.
fn later(more: &[Step]) -> Rule {
    let steps = [Step::NotFirst].iter().chain(more).chain([&Step::Return]);
    Rule { steps: steps.cloned().collect(), comment: Some("not the first packet".to_owned()) }
}

fn stray() -> Rule {
    rule([Step::Tcp], Step::Drop, "TCP that was not redirected")
}

fn inbound_bypasses(direct_ports: &Set) -> Vec<Rule> {
    vec![
        rule([Step::InInterface("lo".to_owned())], Step::Return, "loopback"),
        lookup(direct_ports, "named ports and the ops port"),
    ]
}

fn nat_chain(name: &str, hook: HookPoint, rules: Vec<Rule>) -> Chain {
    base_chain(name, "nat", hook, DSTNAT, rules)
}

fn base_chain(name: &str, kind: &str, hook: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    Chain { name, kind, hook, priority, accepts: true, rules }
}

fn lookup(set: &Set, comment: &str) -> Rule {
    rule([Step::InSet { key: set.key, set: set.name.clone() }], Step::Return, comment)
}

fn rule(matches: impl IntoIterator<Item = Step>, then: Step, comment: &str) -> Rule {
    let tail = [Step::Counter { packets: 0, bytes: 0 }, then];
    Rule { steps: matches.into_iter().chain(tail).collect(), comment: Some(comment.to_owned()) }
}

fn singles(keys: impl Iterator<Item = impl Into<u128>>) -> Vec<Range> {
    keys.map(|key| {
        let key = key.into();
        Range { first: key, last: key }
    })
    .collect()
}
