//! One rule of a policy: whom it is about, on which ports. Called by the room's views; what a rule
//! decides is the sidecar's `policy`.
//! Never: a pattern in a name, a range of addresses that has two spellings.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::view::MAX_PORTS;
use super::{PolicyError, proto};
use crate::id::{SpiffeId, is_segment};
use crate::wire::{read_address, write_address};

/// Identities or namespaces in one rule.
pub const MAX_NAMES_IN_RULE: usize = 1_024;

/// Ranges of source addresses in one rule: searched from end to end, once the peer's name fits.
pub const MAX_CIDRS_IN_RULE: usize = 256;

/// A namespace of Kubernetes (63), a slash, and the name of one of its objects (253).
pub const MAX_RULE_NAME_BYTES: usize = 317;

/// A namespace of Kubernetes is a DNS label.
const MAX_NAMESPACE_BYTES: usize = 63;

/// Names peers, on some ports. Matches as `proto/policy.proto` says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleView {
    /// Shown in verdicts: `namespace/name`.
    pub name: String,
    /// Empty: all.
    pub ports: BTreeSet<u16>,
    pub ids: BTreeSet<SpiffeId>,
    /// Namespaces of the own trust domain.
    pub namespaces: BTreeSet<String>,
    /// Without bits beyond their prefix.
    pub cidrs: BTreeSet<IpNet>,
}

impl RuleView {
    pub(super) fn to_proto(&self) -> proto::Rule {
        let cidr = |range: &IpNet| proto::Cidr {
            address: write_address(range.addr()),
            prefix: range.prefix_len().into(),
        };
        proto::Rule {
            name: self.name.clone(),
            ports: self.ports.iter().map(|port| u32::from(*port)).collect(),
            spiffe_ids: self.ids.iter().map(|id| id.as_str().to_owned()).collect(),
            namespaces: self.namespaces.iter().cloned().collect(),
            cidrs: self.cidrs.iter().map(cidr).collect(),
        }
    }

    pub(super) fn read(wire: proto::Rule) -> Result<Self, PolicyError> {
        let proto::Rule { name, ports, spiffe_ids, namespaces, cidrs } = wire;
        let bytes = name.len();
        if !(1..=MAX_RULE_NAME_BYTES).contains(&bytes) || !name.split('/').all(is_segment) {
            return Err(PolicyError::RuleName { bytes });
        }
        at_most(MAX_PORTS, "ports in a rule", ports.len())?;
        at_most(MAX_NAMES_IN_RULE, "identities in a rule", spiffe_ids.len())?;
        at_most(MAX_NAMES_IN_RULE, "namespaces in a rule", namespaces.len())?;
        at_most(MAX_CIDRS_IN_RULE, "ranges of addresses in a rule", cidrs.len())?;
        let is_namespace = |it: &String| it.len() <= MAX_NAMESPACE_BYTES && is_segment(it);
        if !namespaces.iter().all(is_namespace) {
            return Err(PolicyError::Namespace { rule: name });
        }
        Ok(Self {
            ports: ports.into_iter().map(read_port).collect::<Result<_, _>>()?,
            ids: spiffe_ids.iter().map(|id| read_id(&name, id)).collect::<Result<_, _>>()?,
            namespaces: namespaces.into_iter().collect(),
            cidrs: cidrs.iter().map(|cidr| read_cidr(&name, cidr)).collect::<Result<_, _>>()?,
            name,
        })
    }
}

fn read_id(rule: &str, text: &str) -> Result<SpiffeId, PolicyError> {
    match SpiffeId::parse(text) {
        Ok(id) if id.is_reserved() => Err(PolicyError::Reserved { rule: rule.to_owned() }),
        Ok(id) => Ok(id),
        Err(source) => Err(PolicyError::Id { rule: rule.to_owned(), source }),
    }
}

/// Source addresses are compared in their one spelling, so a range of IPv4 in IPv6 would match
/// nobody, which is not what a deny rule means.
fn read_cidr(rule: &str, wire: &proto::Cidr) -> Result<IpNet, PolicyError> {
    let wrong = |why| PolicyError::Cidr { rule: rule.to_owned(), why };
    let address = read_address(&wire.address).ok_or_else(|| wrong("not 4 or 16 bytes"))?;
    let prefix = u8::try_from(wire.prefix).ok();
    let range = prefix.and_then(|prefix| IpNet::new(address, prefix).ok());
    let range = range.ok_or_else(|| wrong("its prefix is longer than its address"))?;
    if range.addr() != range.network() {
        return Err(wrong("it has bits beyond its prefix"));
    }
    match range {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(wrong("it is IPv4 written as IPv6"))
        }
        range => Ok(range),
    }
}

pub(super) fn read_port(wire: u32) -> Result<u16, PolicyError> {
    match u16::try_from(wire) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(PolicyError::Port { seen: wire }),
    }
}

pub(super) fn at_most(most: usize, what: &'static str, seen: usize) -> Result<(), PolicyError> {
    if seen > most { Err(PolicyError::TooMany { what, seen, most }) } else { Ok(()) }
}
