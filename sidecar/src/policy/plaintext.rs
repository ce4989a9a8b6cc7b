//! May somebody who proves no identity enter a permissive port? Asked by `inbound` before the workload
//! is dialled for plaintext, and again whenever the world changes.
//!
//! Never: yes where a rule names the port, for whom it lets in is said by identity; yes without an end.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::sync::Arc;

use super::{Authorized, Mode, Policy};

/// Plaintext that may enter, and until which second of the Unix epoch.
#[derive(Debug)]
pub struct Unprotected {
    pub proof: Authorized,
    pub until: u64,
}

/// Why plaintext may not enter, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlaintext {
    #[error("a controller decides here, and has not said anything yet")]
    Pending,
    #[error("port {port} takes mutual TLS only; give the client a sidecar")]
    Strict { port: u16 },
    #[error("rule {rule} denies whoever comes from {from} on port {port}")]
    Denied { rule: Arc<str>, from: IpAddr, port: u16 },
    #[error(
        "port {port} is permissive, but rules name who may enter it, and plaintext proves no identity; \
         give the client a sidecar"
    )]
    Named { port: u16 },
}

impl Policy {
    /// Whether plaintext from there may enter this port now.
    pub fn admit_plaintext(
        &self,
        from: IpAddr,
        port: u16,
        now: u64,
    ) -> Result<Unprotected, NoPlaintext> {
        if self.is_pending {
            return Err(NoPlaintext::Pending);
        }
        let until = match self.mode(port) {
            Mode::Permissive { until } if now < until => until,
            Mode::Permissive { .. } | Mode::Strict => return Err(NoPlaintext::Strict { port }),
        };
        let catches = |rule: &&super::Rule| rule.catches_anybody(from, port);
        if let Some(rule) = self.config.deny.iter().find(catches) {
            return Err(NoPlaintext::Denied { rule: Arc::clone(&rule.name), from, port });
        }
        if self.is_named(port) {
            return Err(NoPlaintext::Named { port });
        }
        Ok(Unprotected { proof: Authorized { port }, until })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use myelin_identity::id::TrustDomain;

    use super::super::{Author, Config, PortConfig, Ports, Rule};
    use super::*;
    use crate::addr::CidrSet;

    #[test]
    fn plaintext_enters_permissive_ports_that_no_rule_is_about() {
        let mut config = Config::strict(TrustDomain::parse("td.example").unwrap());
        config.default = Mode::Permissive { until: 2_000 };
        config.ports.insert(443, PortConfig::new(Mode::Strict));
        let ports = |port: u16| Ports::Only([port].into());
        let rule = |name: &str, ports, ids: &[&str], cidr: Option<&str>| Rule {
            name: name.into(),
            author: Author::File,
            ports,
            ids: ids.iter().map(|id| myelin_identity::id::SpiffeId::parse(id).unwrap()).collect(),
            namespaces: HashSet::new(),
            cidrs: CidrSet::new(cidr.iter().map(|cidr| cidr.parse().unwrap()).collect()),
        };
        let cart = "spiffe://td.example/ns/shop/sa/cart";
        config.allow = vec![
            rule("a", ports(8080), &[cart], None),
            rule("b", ports(8081), &[], Some("10.0.0.0/8")),
        ];
        config.deny = vec![
            rule("closed", ports(9090), &[cart], None),
            rule("away", Ports::All, &[], Some("10.9.0.0/16")),
            rule("him", Ports::All, &[cart], None),
        ];
        let policy = Policy::new(config.clone());
        let asked = |from: &str, port, now| {
            let admitted = policy.admit_plaintext(from.parse().unwrap(), port, now);
            admitted.map(|admitted| (admitted.proof.port(), admitted.until))
        };
        let named = |port| Err(NoPlaintext::Named { port });
        let from = "10.9.0.1".parse().unwrap();
        let table = [
            ("10.0.0.1", 80, 1_999, Ok((80, 2_000))),
            ("10.0.0.1", 80, 2_000, Err(NoPlaintext::Strict { port: 80 })),
            ("10.0.0.1", 443, 0, Err(NoPlaintext::Strict { port: 443 })),
            // An allow by addresses is about identities of the own domain from there.
            ("10.0.0.1", 8080, 0, named(8080)),
            ("10.0.0.1", 8081, 0, named(8081)),
            ("10.0.0.1", 9090, 0, named(9090)),
            ("10.9.0.1", 80, 0, Err(NoPlaintext::Denied { rule: "away".into(), from, port: 80 })),
            ("10.8.0.1", 80, 0, Ok((80, 2_000))),
        ];
        for (from, port, now, expected) in table {
            assert_eq!(asked(from, port, now), expected, "{from} {port} {now}");
        }
        let pending = Policy::pending(config).admit_plaintext("10.8.0.1".parse().unwrap(), 80, 0);
        assert_eq!(pending.unwrap_err(), NoPlaintext::Pending);
    }
}
