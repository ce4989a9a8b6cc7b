//! From all policies that are about a workload to the one that its sidecar is told. Pure. Called by
//! `catalog`.
//!
//! Never: leaves out what restricts: beyond a bound, the ports of what does not fit are closed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use ipnet::IpNet;
use myelin_identity::policy::{EncodedPolicy, MAX_PORTS, MAX_RULES, Mode, PolicyView, RuleView};

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

/// What all rules come to.
#[derive(Default)]
struct Gathered {
    allow: BTreeSet<RuleView>,
    deny: BTreeSet<RuleView>,
    audit: BTreeSet<RuleView>,
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
    gathered.close();
    let (mode, ports, more_ports) = demands.told();
    let Gathered { allow, deny, audit, is_over, .. } = gathered;
    let view = PolicyView { mode, ports, allow, deny, audit };
    match EncodedPolicy::new(&view) {
        Ok(encoded) => Compiled { encoded, is_over: is_over || more_ports },
        // Each rule was taken alone, so together they are too long.
        Err(_) => Compiled { encoded: nobody(), is_over: true },
    }
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

impl Gathered {
    fn take(&mut self, effect: &Effect) {
        match effect {
            Effect::Allow(rule) => drop(self.allow.insert(rule.clone())),
            Effect::Deny(rule) => drop(self.deny.insert(rule.clone())),
            Effect::Audit(rule) => drop(self.audit.insert(rule.clone())),
            Effect::Close(ports) => self.closed.add(ports),
        }
    }

    /// What does not fit allows nobody, and denies everybody.
    fn fit(&mut self) {
        if let Some(ports) = cut(&mut self.allow, MAX_RULES, MAX_RULES - 1) {
            self.allow.insert(empty(ports));
            self.is_over = true;
        }
        // What is closed takes a rule.
        let most = MAX_RULES - usize::from(!matches!(self.closed, Closed::Nowhere));
        if let Some(ports) = cut(&mut self.deny, most, MAX_RULES - 1) {
            self.closed.add(&ports);
            self.is_over = true;
        }
        self.is_over |= cut(&mut self.audit, MAX_RULES, MAX_RULES).is_some();
    }

    fn close(&mut self) {
        match std::mem::take(&mut self.closed) {
            Closed::Nowhere => {}
            Closed::All => {
                self.allow = [empty(Ports::new())].into();
                self.deny.insert(everybody(Ports::new()));
            }
            Closed::Ports(closed) => {
                // A rule for all ports stays, and the deny rule wins over it.
                let without = |mut rule: RuleView| {
                    let is_all = rule.ports.is_empty();
                    rule.ports.retain(|port| !closed.contains(port));
                    (is_all || !rule.ports.is_empty()).then_some(rule)
                };
                self.allow =
                    std::mem::take(&mut self.allow).into_iter().filter_map(without).collect();
                self.deny.insert(everybody(closed));
            }
        }
    }
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
}

/// Of more rules than `most` it leaves `kept`, and says which ports the others are about.
fn cut(rules: &mut BTreeSet<RuleView>, most: usize, kept: usize) -> Option<Ports> {
    if rules.len() <= most {
        return None;
    }
    let first = rules.iter().nth(kept)?.clone();
    let rest = rules.split_off(&first);
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
