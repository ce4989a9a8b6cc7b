//! One rule: whom it is about, where from, on which ports, and who said it. Called by `Policy`.
//!
//! Never: a pattern or a prefix in a name; a rule that is about everybody because it says nothing.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::policy::RuleView;

use crate::addr::CidrSet;

/// Names peers, on some ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Shown in verdicts.
    pub name: Arc<str>,
    pub author: Author,
    pub ports: Ports,
    pub ids: HashSet<SpiffeId>,
    /// Namespaces of the own trust domain.
    pub namespaces: HashSet<String>,
    /// Where the peer must come from; empty: anywhere.
    pub cidrs: CidrSet,
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    File,
    Controller,
}

impl Author {
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Controller => "controller",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    All,
    Only(HashSet<u16>),
}

impl Ports {
    pub fn contain(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(ports) => ports.contains(&port),
        }
    }
}

impl From<&RuleView> for Rule {
    fn from(view: &RuleView) -> Self {
        let ports = match view.ports.is_empty() {
            true => Ports::All,
            false => Ports::Only(view.ports.iter().copied().collect()),
        };
        Self {
            name: view.name.as_str().into(),
            author: Author::Controller,
            ports,
            ids: view.ids.iter().cloned().collect(),
            namespaces: view.namespaces.iter().cloned().collect(),
            cidrs: CidrSet::new(view.cidrs.iter().copied().collect()),
        }
    }
}

impl Rule {
    /// An allow rule lets in whom it lists; by addresses alone, whoever is an ordinary workload of
    /// the own trust domain.
    pub(super) fn allows(
        &self,
        own: &TrustDomain,
        peer: &SpiffeId,
        from: IpAddr,
        port: u16,
    ) -> bool {
        let is_ordinary = || peer.trust_domain() == own && !peer.is_reserved();
        let named = || self.lists(own, peer) || (self.goes_by_address_alone() && is_ordinary());
        self.ports.contain(port) && named() && self.covers(from)
    }

    /// A deny or audit rule is about whom it lists; by addresses alone, about anybody from there:
    /// nobody escapes because of who he is.
    pub(super) fn catches(
        &self,
        own: &TrustDomain,
        peer: &SpiffeId,
        from: IpAddr,
        port: u16,
    ) -> bool {
        let named = || self.lists(own, peer) || self.goes_by_address_alone();
        self.ports.contain(port) && named() && self.covers(from)
    }

    /// A deny rule that goes by addresses alone is about those without an identity too.
    pub(super) fn catches_anybody(&self, from: IpAddr, port: u16) -> bool {
        self.ports.contain(port) && self.goes_by_address_alone() && self.covers(from)
    }

    fn lists(&self, own: &TrustDomain, peer: &SpiffeId) -> bool {
        self.ids.contains(peer)
            || (peer.trust_domain() == own
                && peer.namespace().is_some_and(|name| self.namespaces.contains(name)))
    }

    fn goes_by_address_alone(&self) -> bool {
        self.ids.is_empty() && self.namespaces.is_empty() && !self.cidrs.is_empty()
    }

    fn covers(&self, from: IpAddr) -> bool {
        self.cidrs.is_empty() || self.cidrs.contains(from)
    }
}
