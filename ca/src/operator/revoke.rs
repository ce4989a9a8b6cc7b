//! Withdrawal as an operator asks for it and reads about it.
//!
//! Never: decides; `authority::revocation` does.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use myelin_identity::id::TrustDomain;

use super::OperatorError;
use crate::authority::revocation::{self, DenialLine, RevokeRequest, Revoked};
use crate::clock::{UnixSeconds, rfc3339};
use crate::journal::{Cause, Journal};

pub(super) async fn revoke(
    journal: &Journal,
    trust_domain: &TrustDomain,
    now: UnixSeconds,
    request: &RevokeRequest,
) -> Result<Revoked, OperatorError> {
    let revoked = revocation::revoke(journal, trust_domain, request, now).await?;
    tracing::warn!(
        target: "audit", outcome = "revoked", id = revoked.spiffe_id, number = revoked.number,
        serials = ?revoked.serials, hosts = revoked.hosts, tokens = revoked.tokens,
        until = revoked.until, reason = request.reason, "revoked by an operator"
    );
    Ok(revoked)
}

pub(super) async fn undo(
    journal: &Journal,
    now: UnixSeconds,
    number: u64,
) -> Result<DenialLine, OperatorError> {
    let undone = revocation::undo(journal, number, now).await?;
    tracing::warn!(
        target: "audit", outcome = "revocation_undone", id = undone.spiffe_id, number,
        serials = ?undone.serials, reason = undone.reason, "a revocation was taken back"
    );
    Ok(undone)
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, spiffe_id, serials, hosts, tokens, until } = self;
        write!(f, "number {number}: ")?;
        match serials.len() {
            0 => write!(f, "{spiffe_id} is revoked until {}", rfc3339(*until))?,
            count => write!(
                f,
                "{count} certificate(s) of one machine of {spiffe_id} are revoked until {}",
                rfc3339(*until)
            )?,
        }
        write!(f, "; {hosts} host key(s) barred, {tokens} waiting token(s) void")
    }
}

impl fmt::Display for DenialLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self.cause {
            Cause::Alarm => "alarm",
            Cause::Operator => "operator",
        };
        write!(f, "{:4}  {cause:8}  until {}  ", self.number, rfc3339(self.until))?;
        if !self.spiffe_id.is_empty() {
            write!(f, "{}", self.spiffe_id)?;
        }
        write!(f, "{}", self.serials.join(" "))?;
        if !self.reason.is_empty() {
            write!(f, "  ({})", self.reason)?;
        }
        Ok(())
    }
}
