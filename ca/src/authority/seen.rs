//! What one attempt at an issue read from the journal, and the certificate that this very request
//! was given before, if that is what was found. Filled by `authority::issue`; `entries` and `alarm`
//! write against its revisions.
//!
//! Never: reads or writes the journal.

// SPDX-License-Identifier: Apache-2.0

use rustls_pki_types::CertificateDer;

use super::decide::Known;
use super::denied::Denied;
use super::issued::{Issued, Kept};
use super::registration::Registered;
use super::{IssueError, Reason};
use crate::attest::{Claimed, Lasts, Proven};
use crate::clock::UnixSeconds;
use crate::journal::{
    BoundRecord, Entry, Grant, Held, Hex, HostRecord, LineageRecord, Record, TokenRecord,
};

/// Everything that one attempt read, with revisions.
pub(super) struct Seen {
    pub(super) token: Option<Entry<TokenRecord>>,
    pub(super) host: Option<Entry<HostRecord>>,
    pub(super) lineage: Option<Entry<LineageRecord>>,
    /// What rests on evidence from outside, if the caller shows any.
    pub(super) outside: Option<Outside>,
    /// What is denied; the commit holds only if nothing was denied since.
    pub(super) denied: Denied,
}

/// The entries and what they say, and whether the evidence is bound to a host key.
pub(super) struct Outside {
    pub(super) registered: Registered,
    pub(super) granted: Result<Grant, Reason>,
    pub(super) bound: Option<Entry<BoundRecord>>,
    /// The host that the evidence is bound to, if that is another than the caller's.
    pub(super) bearer: Option<Entry<HostRecord>>,
}

impl Seen {
    pub(super) fn known(&self, proven: &Proven, now: UnixSeconds) -> Known<'_> {
        let token = self.token.as_ref().map(|entry| &entry.record.grant);
        let entry = self.outside.as_ref().map(|outside| outside.granted.as_ref());
        let entry = entry.map(|granted| granted.map_err(|reason| *reason));
        let by_entry = entry.and_then(Result::ok);
        let grant =
            token.or(by_entry).or_else(|| self.host.as_ref().map(|entry| &entry.record.grant));
        Known {
            entry,
            bound_elsewhere: self.outside.as_ref().and_then(|it| it.bound_elsewhere(proven, now)),
            id_denied: grant.is_some_and(|grant| self.denied.holds_id(&grant.spiffe_id, now)),
            token: self.token.as_ref().map(|entry| &entry.record),
            host: self.host.as_ref().map(|entry| &entry.record),
            lineage: self.lineage.as_ref().map(|entry| &entry.record),
            held: self.held(proven),
        }
    }

    /// What the journal says of the SVID that the connection proved.
    pub(super) fn held(&self, proven: &Proven) -> Option<&Held> {
        let (Claimed::Renewal { serial, .. } | Claimed::Companion { serial, .. }) =
            proven.claimed()
        else {
            return None;
        };
        self.host.as_ref()?.record.holds(serial)
    }

    /// The certificate that was issued to this request before.
    pub(super) fn again(&self, proven: &Proven) -> Result<Kept, IssueError> {
        let (Some(entry), Some(host)) = (&self.lineage, &self.host) else {
            return Err(IssueError::Refused(Reason::LineageUnknown));
        };
        let lineage = &entry.record;
        debug_assert_eq!(lineage.host, *proven.host());
        let issued = Issued {
            chain: vec![CertificateDer::from(lineage.leaf_der.0.clone())],
            lineage: Hex(lineage_id(&entry.key)),
            generation: lineage.generation,
            spiffe_id: host.record.grant.spiffe_id.clone(),
            addresses: host.record.grant.addresses.clone(),
            serial: lineage.serial.clone(),
            not_after: lineage.not_after,
            again: true,
            logged: lineage.logged.clone(),
            log_proof: Vec::new(),
        };
        Ok(Kept { issued, issuer: lineage.issuer.clone() })
    }
}

impl Outside {
    /// Why another host key stands in the way of this one, if one does.
    fn bound_elsewhere(&self, proven: &Proven, now: UnixSeconds) -> Option<Reason> {
        let to = proven.attested()?.bound_to.as_ref()?;
        let bound = &self.bound.as_ref()?.record;
        if bound.host == *proven.host() {
            return None;
        }
        let denied = self.bearer.as_ref().is_some_and(|bearer| bearer.record.denied);
        match to.lasts {
            Lasts::ForGood => Some(Reason::Replayed),
            // A machine that was revoked does not come back by making itself another host key.
            Lasts::WithTheSvid if denied => Some(Reason::HostDenied),
            Lasts::WithTheSvid => (bound.not_after > now).then_some(Reason::MachineBound),
        }
    }
}

/// The lineage's id out of its key in the journal.
fn lineage_id(key: &str) -> Vec<u8> {
    let hex = key.trim_start_matches(<LineageRecord as Record>::PREFIX);
    serde_json::from_value::<Hex>(hex.into()).map(|hex| hex.0).unwrap_or_default()
}
