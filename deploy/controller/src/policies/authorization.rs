//! An AuthorizationPolicy, read from its JSON: who may enter which ports, and who not. Called by
//! `catalog`.
//!
//! Never: opens anything by mistake: an Allow that cannot be read keeps its ports and allows nobody on
//! them, a Deny that cannot be read closes its ports.

// SPDX-License-Identifier: Apache-2.0

use std::borrow::Cow;
use std::collections::BTreeSet;

use ipnet::IpNet;
use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::policy::{
    EncodedPolicy, MAX_CIDRS_IN_RULE, MAX_NAMES_IN_RULE, MAX_POLICY_BYTES, MAX_PORTS, MAX_RULES,
    PolicyView, RuleView,
};
use serde_json::Value;

use super::fields::{self, Fields, Targets, Wrong};

const FIELDS: &[&str] = &["targetRefs", "action", "rules"];
const FROM_FIELDS: &[&str] = &["ids", "namespaces", "serviceAccounts", "cidrs"];

/// Ports of a rule; empty: all.
pub(super) type Ports = BTreeSet<u16>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authorization {
    pub(super) targets: Targets,
    pub(super) effects: Vec<Effect>,
    /// The first thing that could not be read.
    pub(super) wrong: Option<Wrong>,
}

/// What one rule comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow(RuleView),
    Deny(RuleView),
    Audit(RuleView),
    /// Nobody enters here, whatever else is said.
    Close(Ports),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    Audit,
    Unknown,
}

impl Effect {
    /// Where it is not known whether it applies: what it takes away, and nothing that it gives.
    pub(super) fn at_the_worst(&self) -> Option<Cow<'_, Self>> {
        match self {
            Self::Allow(rule) => Some(Cow::Owned(Self::Allow(RuleView {
                name: rule.name.clone(),
                ports: rule.ports.clone(),
                ids: BTreeSet::new(),
                namespaces: BTreeSet::new(),
                cidrs: BTreeSet::new(),
            }))),
            Self::Deny(_) | Self::Close(_) => Some(Cow::Borrowed(self)),
            Self::Audit(_) => None,
        }
    }
}

/// Whose policy it is.
pub(super) struct Author<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) namespace: &'a str,
    /// `namespace/name`, as verdicts show it.
    pub(super) name: &'a str,
}

impl Authorization {
    pub(super) fn read(spec: &Value, author: &Author<'_>) -> Self {
        let closed = || vec![Effect::Close(Ports::new())];
        let mut wrong = None;
        let fields = match Fields::of("spec", spec) {
            Ok(fields) => fields,
            Err(wrong) => {
                let (targets, wrong) = (Targets::Unknown, Some(wrong));
                return Self { targets, effects: closed(), wrong };
            }
        };
        let mut kept = |why: Wrong| why.or_keep(&mut wrong);
        let targets = fields.targets().unwrap_or_else(|why| {
            kept(why);
            Targets::Unknown
        });
        let action = action(&fields).unwrap_or_else(|why| {
            kept(why);
            Action::Unknown
        });
        let is_known = fields.knows(FIELDS).map_err(&mut kept).is_ok();
        let effects = match fields.list("rules", MAX_RULES) {
            Err(why) => {
                kept(why);
                action.unread(author, Ports::new())
            }
            // To allow without saying whom is to allow nobody.
            Ok(None) if action == Action::Allow => vec![Effect::Allow(author.nobody(Ports::new()))],
            Ok(None) => {
                kept(Wrong::new("spec.rules", "a rule: only an Allow may have none"));
                action.unread(author, Ports::new())
            }
            Ok(Some(rules)) => {
                let (mut effects, mut room) = (Vec::new(), MAX_POLICY_BYTES);
                for (index, rule) in rules.iter().enumerate() {
                    let at = format!("spec.rules[{index}]");
                    let (ports, read) = author.rule(&at, rule, &mut room);
                    // Whom it allows counts only if it is known where, and under which other conditions.
                    let counts = is_known && action != Action::Unknown;
                    let counts = counts && (targets != Targets::Unknown || action == Action::Deny);
                    effects.extend(match read {
                        Ok(rules) if counts => {
                            rules.into_iter().map(|rule| action.effect(rule)).collect()
                        }
                        Ok(_) => action.unread(author, ports),
                        Err(why) => {
                            kept(why);
                            action.unread(author, ports)
                        }
                    });
                }
                effects
            }
        };
        if effects.len() > MAX_RULES {
            kept(Wrong::new("spec.rules", &format!("at most {MAX_RULES} entries of from")));
        }
        Self { targets, effects, wrong }
    }
}

impl Action {
    fn effect(self, rule: RuleView) -> Effect {
        match self {
            Self::Allow => Effect::Allow(rule),
            Self::Audit => Effect::Audit(rule),
            Self::Deny | Self::Unknown => Effect::Deny(rule),
        }
    }

    /// What is left of a rule that cannot be read.
    fn unread(self, author: &Author<'_>, ports: Ports) -> Vec<Effect> {
        match self {
            Self::Allow => vec![Effect::Allow(author.nobody(ports))],
            Self::Audit => Vec::new(),
            Self::Deny | Self::Unknown => vec![Effect::Close(ports)],
        }
    }
}

fn action(fields: &Fields<'_>) -> Result<Action, Wrong> {
    match fields.text("action")? {
        Some("Allow") => Ok(Action::Allow),
        Some("Deny") => Ok(Action::Deny),
        Some("Audit") => Ok(Action::Audit),
        _ => Err(Wrong::new("spec.action", "Allow, Deny or Audit")),
    }
}

impl Author<'_> {
    fn nobody(&self, ports: Ports) -> RuleView {
        RuleView {
            name: self.name.to_owned(),
            ports,
            ids: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            cidrs: BTreeSet::new(),
        }
    }

    /// Its ports, which are all of them where they cannot be read; and one rule for each `from`.
    fn rule(
        &self,
        at: &str,
        value: &Value,
        room: &mut usize,
    ) -> (Ports, Result<Vec<RuleView>, Wrong>) {
        let fields = match Fields::of(at, value) {
            Ok(fields) => fields,
            Err(wrong) => return (Ports::new(), Err(wrong)),
        };
        let ports = match ports(&fields) {
            Ok(ports) => ports,
            Err(wrong) => return (Ports::new(), Err(wrong)),
        };
        let read = fields.knows(&["from", "to"]).and_then(|()| self.sources(&fields, &ports, room));
        (ports, read)
    }

    /// `room`: how many bytes of a sidecar's policy are left, none once a rule did not fit.
    fn sources(
        &self,
        rule: &Fields<'_>,
        ports: &Ports,
        room: &mut usize,
    ) -> Result<Vec<RuleView>, Wrong> {
        let from = rule.list("from", MAX_RULES)?;
        let from = from.ok_or_else(|| Wrong::new(&rule.at("from"), "whom the rule is about"))?;
        let placed = from.iter().enumerate();
        let read = placed.map(|(index, value)| {
            let together = format!("rules that take at most {MAX_POLICY_BYTES} bytes together");
            let too_long = || Wrong::new("spec.rules", &together);
            if *room == 0 {
                return Err(too_long());
            }
            let at = format!("{}[{index}]", rule.at("from"));
            let rule = self.source(&at, value, ports)?;
            // A sidecar takes a policy whole or not at all: what it would refuse stays here.
            let alone = PolicyView { allow: [rule.clone()].into(), ..PolicyView::default() };
            let encoded =
                EncodedPolicy::new(&alone).map_err(|why| Wrong(format!("{at}: {why}")))?;
            let left = room.checked_sub(encoded.answer(None).policy.len());
            *room = left.unwrap_or_default();
            left.map(|_| rule).ok_or_else(too_long)
        });
        read.collect()
    }

    fn source(&self, at: &str, value: &Value, ports: &Ports) -> Result<RuleView, Wrong> {
        let fields = Fields::only(at, value, FROM_FIELDS)?;
        let mut rule = self.nobody(ports.clone());
        for (at, text) in fields.texts("ids", MAX_NAMES_IN_RULE)? {
            let id = SpiffeId::parse(text).map_err(|why| Wrong(format!("{at}: {why}")))?;
            rule.ids.insert(id);
        }
        for (at, text) in fields.texts("serviceAccounts", MAX_NAMES_IN_RULE)? {
            let (namespace, account) = text.split_once('/').unwrap_or((self.namespace, text));
            let id = SpiffeId::workload(self.trust_domain, namespace, account);
            let expected = "the name of a service account, or namespace/name";
            rule.ids.insert(id.map_err(|_| Wrong::new(&at, expected))?);
        }
        for (_, text) in fields.texts("namespaces", MAX_NAMES_IN_RULE)? {
            rule.namespaces.insert(text.to_owned());
        }
        for (at, text) in fields.texts("cidrs", MAX_CIDRS_IN_RULE)? {
            let range = text.parse::<IpNet>().ok().filter(|it| it.addr() == it.network());
            let expected = "a range such as 10.0.0.0/8, its first address in front";
            rule.cidrs.insert(range.ok_or_else(|| Wrong::new(&at, expected))?);
        }
        if rule.ids.is_empty() && rule.namespaces.is_empty() && rule.cidrs.is_empty() {
            return Err(Wrong::new(at, "ids, namespaces, serviceAccounts or cidrs"));
        }
        Ok(rule)
    }
}

fn ports(rule: &Fields<'_>) -> Result<Ports, Wrong> {
    let mut ports = Ports::new();
    for (index, value) in rule.list("to", MAX_PORTS)?.unwrap_or_default().iter().enumerate() {
        let at = format!("{}[{index}]", rule.at("to"));
        let to = Fields::only(&at, value, &["ports"])?;
        let listed = to.list("ports", MAX_PORTS)?;
        let listed = listed.ok_or_else(|| Wrong::new(&to.at("ports"), "a port"))?;
        for (index, value) in listed.iter().enumerate() {
            ports.insert(fields::port(&format!("{}[{index}]", to.at("ports")), value)?);
        }
    }
    match ports.len() > MAX_PORTS {
        true => Err(Wrong::new(&rule.at("to"), &format!("at most {MAX_PORTS} ports"))),
        false => Ok(ports),
    }
}
