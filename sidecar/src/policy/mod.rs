//! Two questions about an inbound connection: what does this port demand, and may this peer enter?
//! Pure decisions over an immutable value. Called by `inbound` (at accept, at every `open`, after
//! every reload); built by `config`, merged with what a controller says and swapped by `policies`.
//!
//! Never: a pattern or a prefix in a name (identities and namespaces are compared whole), a clock,
//! a socket, a way to obtain `Authorized` other than by being allowed.

// SPDX-License-Identifier: Apache-2.0

mod merge;
mod plaintext;
mod rule;
#[cfg(test)]
mod tests;

pub use self::plaintext::{NoPlaintext, Unprotected};
pub use self::rule::{Author, Ports, Rule};

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use myelin_identity::id::{SpiffeId, TrustDomain};
pub use myelin_identity::policy::{
    MAX_CIDRS_IN_RULE, MAX_NAMES_IN_RULE, MAX_PORTS, MAX_RULES, Mode,
};

/// What the operator wrote, already parsed.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    /// For ports that have no entry of their own.
    pub default: Mode,
    pub ports: HashMap<u16, PortConfig>,
    pub allow: Vec<Rule>,
    pub deny: Vec<Rule>,
    /// They change nothing: what they match is counted and told.
    pub audit: Vec<Rule>,
}

impl Config {
    /// Strict on every port, any identity of the own trust domain.
    pub fn strict(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            default: Mode::Strict,
            ports: HashMap::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            audit: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Absent: that of ports without an entry.
    pub mode: Option<Mode>,
    /// The workload speaks first (SMTP, MySQL): matters while permissive.
    pub server_first: bool,
    /// The workload speaks TLS of its own on this port: matters while permissive.
    pub workload_tls: bool,
    /// Peers with a valid SVID that do not speak `myelin/1` may enter.
    pub plain_mtls: Option<PlainMtls>,
}

impl PortConfig {
    pub fn new(mode: Mode) -> Self {
        Self { mode: Some(mode), server_first: false, workload_tls: false, plain_mtls: None }
    }
}

/// How a declared peer that does not speak `myelin/1` is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainMtls {
    /// The ALPN that the port answers with; `None` answers without any.
    pub alpn: Option<Vec<u8>>,
}

/// What a port demands of whoever connects, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A controller decides here and has not said anything yet: nobody enters.
    Pending,
    Mtls,
    /// Plaintext may enter as well.
    Permissive {
        server_first: bool,
        workload_tls: bool,
    },
}

/// Proof that policy let a peer enter one port. Only its holder can dial the workload.
#[derive(Debug)]
pub struct Authorized {
    port: u16,
}

impl Authorized {
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A peer that may not enter, and the rule that says so. The names of built-in rules stand in
/// parentheses, which no configured name can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule} denies {peer} on port {port}")]
pub struct Denied {
    pub rule: Arc<str>,
    pub peer: SpiffeId,
    pub port: u16,
}

/// A controller decides here, and has not said anything yet.
pub const PENDING: &str = "(no word from a controller yet)";
/// Some rule names the port, and no allow rule matches.
pub const NOT_ALLOWED: &str = "(no allow rule matches)";
/// The identity belongs to another trust domain and no allow rule names it.
pub const FOREIGN: &str = "(other trust domain)";
/// The identity is one of the CA's own and no allow rule names it.
pub const RESERVED: &str = "(reserved identity)";

/// The immutable policy of one configuration.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    is_pending: bool,
    /// The second in which each audit rule last had a line in the log.
    told: Box<[AtomicU64]>,
}

/// A use that an audit rule is about.
#[derive(Debug)]
pub struct Audited<'p> {
    pub rule: &'p Rule,
    told: &'p AtomicU64,
}

impl Audited<'_> {
    /// Whether it gets a line in the log: each rule one a second, whichever use comes first.
    pub fn is_told(&self, now: u64) -> bool {
        self.told.swap(now, Ordering::Relaxed) != now
    }
}

impl Policy {
    pub fn new(config: Config) -> Self {
        let told = config.audit.iter().map(|_| AtomicU64::new(0)).collect();
        Self { config, is_pending: false, told }
    }

    /// A controller decides too, and has not said anything yet: nobody enters.
    pub fn pending(config: Config) -> Self {
        Self { is_pending: true, ..Self::new(config) }
    }

    pub fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// First question: what does this port demand now?
    pub fn demand(&self, port: u16, now: u64) -> Demand {
        if self.is_pending {
            return Demand::Pending;
        }
        let of_port = self.config.ports.get(&port);
        match self.mode(port) {
            Mode::Permissive { until } if now < until => Demand::Permissive {
                server_first: of_port.is_some_and(|of_port| of_port.server_first),
                workload_tls: of_port.is_some_and(|of_port| of_port.workload_tls),
            },
            Mode::Permissive { .. } | Mode::Strict => Demand::Mtls,
        }
    }

    fn mode(&self, port: u16) -> Mode {
        let of_port = self.config.ports.get(&port);
        of_port.and_then(|of_port| of_port.mode).unwrap_or(self.config.default)
    }

    /// How a peer without `myelin/1` is served on this port, if it is declared.
    pub fn plain_mtls(&self, port: u16) -> Option<&PlainMtls> {
        self.config.ports.get(&port)?.plain_mtls.as_ref()
    }

    /// Second question: may this authenticated peer enter, from its proven address? A deny rule
    /// wins over every allow rule; once any rule names the port, only who is allowed enters.
    pub fn authorize(
        &self,
        peer: &SpiffeId,
        from: IpAddr,
        port: u16,
    ) -> Result<Authorized, Denied> {
        let denied = |rule: &str| Denied { rule: rule.into(), peer: peer.clone(), port };
        if self.is_pending {
            return Err(denied(PENDING));
        }
        let own = &self.config.trust_domain;
        let catches = |rule: &&Rule| rule.catches(own, peer, from, port);
        if let Some(rule) = self.config.deny.iter().find(catches) {
            return Err(denied(&rule.name));
        }
        if self.config.allow.iter().any(|rule| rule.allows(own, peer, from, port)) {
            return Ok(Authorized { port });
        }
        if self.is_named(port) {
            return Err(denied(NOT_ALLOWED));
        }
        if peer.trust_domain() != own {
            return Err(denied(FOREIGN));
        }
        if peer.is_reserved() {
            return Err(denied(RESERVED));
        }
        Ok(Authorized { port })
    }

    /// The audit rules that are about this use, whatever became of it.
    pub fn audit(
        &self,
        peer: &SpiffeId,
        from: IpAddr,
        port: u16,
    ) -> impl Iterator<Item = Audited<'_>> {
        let own = &self.config.trust_domain;
        let rules = self.config.audit.iter().zip(&self.told);
        rules
            .filter(move |(rule, _)| rule.catches(own, peer, from, port))
            .map(|(rule, told)| Audited { rule, told })
    }

    /// Every ALPN that some port declares, once each.
    pub fn alpns(&self) -> impl Iterator<Item = &[u8]> {
        let declared = self.config.ports.values().filter_map(|port| port.plain_mtls.as_ref());
        let distinct: HashSet<&[u8]> = declared.filter_map(|plain| plain.alpn.as_deref()).collect();
        distinct.into_iter()
    }

    /// What it was built from, to be shown.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Once a policy names the port, only who is allowed enters. A deny rule for every port names
    /// none: it takes somebody away from all of them and says nothing about the others.
    fn is_named(&self, port: u16) -> bool {
        let allows = self.config.allow.iter().any(|rule| rule.ports.contain(port));
        let denies =
            |rule: &Rule| matches!(&rule.ports, Ports::Only(ports) if ports.contains(&port));
        allows || self.config.deny.iter().any(denies)
    }
}
