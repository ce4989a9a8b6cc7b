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
