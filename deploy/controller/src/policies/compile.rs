//! From all policies that are about a workload to the one that its sidecar is told. Pure. Called by
//! `catalog`.
//!
//! Never: leaves out what restricts: beyond a bound, the ports of what does not fit are closed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use ipnet::IpNet;
use myelin_identity::policy::{
    EncodedPolicy, MAX_POLICY_BYTES, MAX_PORTS, MAX_RULES, Mode, PolicyView, RuleView,
};

use super::authorization::{Effect, Ports};
use super::demands::Demands;

/// The name of rules that close ports in the place of somebody's. No policy has it: names of Kubernetes end
/// in a letter or a digit.
pub(super) const CLOSED: &str = "myelin/closed-";

/// One workload's policy, ready to be told.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) encoded: EncodedPolicy,
    /// There was more than a sidecar takes.
    pub(super) is_over: bool,
}

/// What all rules come to; none is copied before it is known that they fit.
#[derive(Default)]
struct Gathered<'p> {
    allow: BTreeSet<&'p RuleView>,
    deny: BTreeSet<&'p RuleView>,
    audit: BTreeSet<&'p RuleView>,
    /// The ports of Allow rules that do not fit.
    unfit: Option<Ports>,
    closed: Closed,
    is_over: bool,
}

/// Where nobody enters.
#[derive(Default)]
enum Closed {
    #[default]
    Nowhere,
    Ports(Ports),
    All,
}

pub(super) fn compile<'p>(
    demands: &Demands,
    effects: impl IntoIterator<Item = &'p Effect>,
) -> Compiled {
    let mut gathered = Gathered::default();
    effects.into_iter().for_each(|effect| gathered.take(effect));
    gathered.fit();
    let (mode, ports, more_ports) = demands.told();
    let Some((rules, more_rules)) = gathered.copied() else {
        return Compiled { encoded: nobody(), is_over: true };
    };
    let mut view = PolicyView { mode, ports, ..rules };
    if let Ok(encoded) = EncodedPolicy::new(&view) {
        return Compiled { encoded, is_over: more_rules || more_ports };
    }
    // Each rule was taken alone, so together they are too long; and what is audited decides nothing.
    view.audit.clear();
    let encoded = EncodedPolicy::new(&view).unwrap_or_else(|_| nobody());
    Compiled { encoded, is_over: true }
}

/// No plaintext, and nobody enters.
fn nobody() -> EncodedPolicy {
    let view = PolicyView {
        mode: Some(Mode::Strict),
        allow: [empty(Ports::new())].into(),
        deny: [everybody(Ports::new())].into(),
        ..PolicyView::default()
    };
    EncodedPolicy::new(&view).expect("a policy of two rules fits")
}

impl<'p> Gathered<'p> {
    fn take(&mut self, effect: &'p Effect) {
        match effect {
            Effect::Allow(rule) => drop(self.allow.insert(rule)),
            Effect::Deny(rule) => drop(self.deny.insert(rule)),
            Effect::Audit(rule) => drop(self.audit.insert(rule)),
            Effect::Close(ports) => self.closed.add(ports),
        }
    }

    /// What does not fit allows nobody, and denies everybody.
    fn fit(&mut self) {
        self.unfit = cut(&mut self.allow, MAX_RULES, MAX_RULES - 1);
        // What is closed takes a rule.
        let most = MAX_RULES - usize::from(!matches!(self.closed, Closed::Nowhere));
        let undenied = cut(&mut self.deny, most, MAX_RULES - 1);
        undenied.iter().for_each(|ports| self.closed.add(ports));
        let unaudited = cut(&mut self.audit, MAX_RULES, MAX_RULES);
        self.is_over = self.unfit.is_some() || undenied.is_some() || unaudited.is_some();
    }

    /// The rules alone, and whether there were more; `None`: those that decide are longer than a policy may be.
    fn copied(mut self) -> Option<(PolicyView, bool)> {
        let room = room_beside(MAX_POLICY_BYTES, &self.allow)?;
        let room = room_beside(room, &self.deny)?;
        if room_beside(room, &self.audit).is_none() {
            self.audit.clear();
            self.is_over = true;
        }
        let audit = self.audit.into_iter().cloned().collect();
        let mut allow: BTreeSet<RuleView> = self.allow.into_iter().cloned().collect();
        allow.extend(self.unfit.map(empty));
        let mut deny: BTreeSet<RuleView> = self.deny.into_iter().cloned().collect();
        self.closed.close(&mut allow, &mut deny);
        Some((PolicyView { allow, deny, audit, ..PolicyView::default() }, self.is_over))
    }
}

/// What is left of `room`, if anything: less than these bytes the rules do not take.
fn room_beside(room: usize, rules: &BTreeSet<&RuleView>) -> Option<usize> {
    rules.iter().try_fold(room, |room, rule| room.checked_sub(least_bytes(rule)))
}

/// Of its encoding: the names alone.
fn least_bytes(rule: &RuleView) -> usize {
    let ids = rule.ids.iter().map(|id| id.as_str().len());
    rule.name.len() + ids.chain(rule.namespaces.iter().map(String::len)).sum::<usize>()
}

impl Closed {
    fn add(&mut self, ports: &Ports) {
        let mut closed = match std::mem::take(self) {
            Self::All => return *self = Self::All,
            Self::Ports(closed) => closed,
            Self::Nowhere => Ports::new(),
        };
        closed.extend(ports);
        *self = match ports.is_empty() || closed.len() > MAX_PORTS {
            true => Self::All,
            false => Self::Ports(closed),
        };
    }

    fn close(self, allow: &mut BTreeSet<RuleView>, deny: &mut BTreeSet<RuleView>) {
        match self {
            Self::Nowhere => {}
            Self::All => {
                *allow = [empty(Ports::new())].into();
                deny.insert(everybody(Ports::new()));
            }
            Self::Ports(closed) => {
                // A rule for all ports stays, and the deny rule wins over it.
                let without = |mut rule: RuleView| {
                    let is_all = rule.ports.is_empty();
                    rule.ports.retain(|port| !closed.contains(port));
                    (is_all || !rule.ports.is_empty()).then_some(rule)
                };
                *allow = std::mem::take(allow).into_iter().filter_map(without).collect();
                deny.insert(everybody(closed));
            }
        }
    }
}

/// Of more rules than `most` it leaves `kept`, and says which ports the others are about.
fn cut(rules: &mut BTreeSet<&RuleView>, most: usize, kept: usize) -> Option<Ports> {
    if rules.len() <= most {
        return None;
    }
    let first = *rules.iter().nth(kept)?;
    let rest = rules.split_off(first);
    let ports: Ports = rest.iter().flat_map(|rule| &rule.ports).copied().collect();
    let is_all = ports.len() > MAX_PORTS || rest.iter().any(|rule| rule.ports.is_empty());
    Some(if is_all { Ports::new() } else { ports })
}

/// It names its ports, and matches nobody.
fn empty(ports: Ports) -> RuleView {
    RuleView {
        name: CLOSED.to_owned(),
        ports,
        ids: BTreeSet::new(),
        namespaces: BTreeSet::new(),
        cidrs: BTreeSet::new(),
    }
}

/// A deny rule that names ranges alone is about anybody.
fn everybody(ports: Ports) -> RuleView {
    let everywhere = ["0.0.0.0/0", "::/0"].map(|range| {
        let range: IpNet = range.parse().expect("both are ranges");
        range
    });
    RuleView { cidrs: everywhere.into(), ..empty(ports) }
}
