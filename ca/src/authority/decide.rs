//! The decision of an issue, as a function of what was proven and what the journal says: issue,
//! hand the same certificate out again, raise the alarm, or refuse. Called by `authority::issue` on
//! every attempt.
//!
//! Never: reads or writes the journal, or knows what is in a certificate.

// SPDX-License-Identifier: Apache-2.0

use super::reason::Reason;
use crate::attest::{Claimed, Proven};
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressRecord, Claim, Grant, Held, HostRecord, LineageRecord, LineageState, TokenRecord,
};

/// Issues that a host may have in quick succession before the sustained rate binds: restarts of a
/// sidecar that cannot start, retries after a network fault.
pub(super) const ISSUE_BURST: u64 = 64;
/// Issues within one default lifetime at the sustained rate. A renewal at half-life needs two; with
/// the burst it bounds the unexpired certificates of one host to 320 where nobody asks for longer lives
/// than the default.
pub(super) const ISSUES_PER_LIFETIME: u64 = 256;
/// Unexpired certificates of one host, whatever lives it asked for: its record lists them, at 130 bytes
/// each, and one alarm puts them all on the deny list.
pub(super) const MAX_HELD: usize = 512;
/// Claims on one address: ports that different workloads of one machine may claim one by one.
pub(super) const MAX_CLAIMS_PER_ADDRESS: usize = 64;

/// What the journal says about those whom the request names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) token: Option<&'a TokenRecord>,
    pub(super) host: Option<&'a HostRecord>,
    /// The lineage that the request is about: the token's, the host's current one, or the one to be
    /// renewed.
    pub(super) lineage: Option<&'a LineageRecord>,
    /// The record of the SVID that the connection proved.
    pub(super) held: Option<&'a Held>,
    /// What the registration entries grant to whoever shows evidence from outside.
    pub(super) entry: Option<Result<&'a Grant, Reason>>,
    /// The evidence stands for another host key, and why that is in the way.
    pub(super) bound_elsewhere: Option<Reason>,
    /// The ID that would be issued is on the deny list.
    pub(super) id_denied: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A first certificate in a new lineage, which supersedes the host's current one.
    Begin {
        grant: Grant,
    },
    /// The next generation of this lineage.
    Advance {
        grant: Grant,
        generation: u64,
    },
    /// The reply was lost: the certificate of this very request again.
    Again,
    /// One SVID was renewed twice: somebody else holds it.
    Alarm,
    Refuse(Reason),
}

/// Decides one request.
pub(super) fn decide(proven: &Proven, known: Known<'_>, now: UnixSeconds) -> Decision {
    if known.id_denied {
        return Decision::Refuse(Reason::IdDenied);
    }
    if known.host.is_some_and(|host| host.denied) {
        return Decision::Refuse(Reason::HostDenied);
    }
    if known.host.is_some_and(HostRecord::is_gone) {
        return Decision::Refuse(Reason::PodGone);
    }
    if let Some(reason) = known.bound_elsewhere {
        return Decision::Refuse(reason);
    }
    match proven.claimed() {
        Claimed::Token { .. } => redeem(proven, known, now),
        Claimed::HostAlone => reattest(proven, known),
        Claimed::Renewal { generation, .. } => renew(proven, known, *generation),
        // Decided in `authority::companion`, which never asks here: what vouches is not renewed.
        Claimed::Companion { .. } => Decision::Refuse(Reason::SvidOfAnotherLineage),
    }
}

/// What this host may have now: what the entries say about its evidence, else what its join token
/// said once.
fn granted<'a>(known: &Known<'a>) -> Result<&'a Grant, Reason> {
    match (known.entry, known.host) {
        (Some(entry), _) => entry,
        (None, None) => Err(Reason::HostUnknown),
        (None, Some(host)) if host.attested_by.is_some() => Err(Reason::EvidenceMissing),
        (None, Some(host)) => Ok(&host.grant),
    }
}

fn redeem(proven: &Proven, known: Known<'_>, now: UnixSeconds) -> Decision {
    let Some(token) = known.token else {
        return Decision::Refuse(Reason::TokenUnknown);
    };
    match (&token.used, known.lineage) {
        (None, _) if token.expires <= now => Decision::Refuse(Reason::TokenExpired),
        (None, _) => Decision::Begin { grant: token.grant.clone() },
        (Some(used), Some(lineage))
            if used.host == *proven.host()
                && lineage.generation == 1
                && same_request(proven, lineage) =>
        {
            Decision::Again
        }
        (Some(_), _) => Decision::Refuse(Reason::TokenUsed),
    }
}

fn reattest(proven: &Proven, known: Known<'_>) -> Decision {
    let grant = match granted(&known) {
        Ok(grant) => grant,
        Err(reason) => return Decision::Refuse(reason),
    };
    match known.lineage {
        Some(lineage)
            if lineage.generation == 1 && lineage.request_key == *proven.request_key() =>
        {
            if same_request(proven, lineage) {
                Decision::Again
            } else {
                Decision::Refuse(Reason::RequestKeyReused)
            }
        }
        _ => Decision::Begin { grant: grant.clone() },
    }
}

fn renew(proven: &Proven, known: Known<'_>, claimed: u64) -> Decision {
    let Some(host) = known.host else {
        return Decision::Refuse(Reason::HostUnknown);
    };
    let grant = match granted(&known) {
        Ok(grant) if grant.spiffe_id != host.grant.spiffe_id => {
            return Decision::Refuse(Reason::IdChanged);
        }
        Ok(grant) => grant,
        Err(reason) => return Decision::Refuse(reason),
    };
    let Some(lineage) = known.lineage.filter(|lineage| lineage.host == *proven.host()) else {
        return Decision::Refuse(Reason::LineageUnknown);
    };
    // Only who holds that very SVID may renew it, and only who holds it may raise an alarm about
    // it.
    let proves = |held: &Held| held.generation == claimed && proven.claimed().names(&held.lineage);
    if !known.held.is_some_and(proves) {
        return Decision::Refuse(Reason::SvidOfAnotherLineage);
    }
    let retried = lineage.request_key == *proven.request_key()
        && (lineage.generation == claimed || lineage.generation == claimed + 1);
    match lineage.state {
        LineageState::Denied => Decision::Refuse(Reason::LineageDenied),
        LineageState::Superseded => Decision::Alarm,
        LineageState::Live if retried && same_request(proven, lineage) => Decision::Again,
        LineageState::Live if retried => Decision::Refuse(Reason::RequestKeyReused),
        LineageState::Live if lineage.generation == claimed => {
            Decision::Advance { grant: grant.clone(), generation: claimed + 1 }
        }
        LineageState::Live => Decision::Alarm,
    }
}

fn same_request(proven: &Proven, lineage: &LineageRecord) -> bool {
    lineage.request_key == *proven.request_key() && lineage.csr_key == proven.csr_fingerprint()
}

/// Whether this host may have another certificate now; yields when its next one is due (GCRA).
pub(super) fn within_rate(
    host: Option<&HostRecord>,
    default_life: u64,
    now: UnixSeconds,
) -> Result<UnixSeconds, Reason> {
    let interval = (default_life / ISSUES_PER_LIFETIME).max(1);
    let due = host.map_or(now, |host| host.next_due.max(now));
    if host.is_some_and(|host| host.unexpired(now).count() >= MAX_HELD) {
        return Err(Reason::TooOften);
    }
    if due > now + interval * ISSUE_BURST { Err(Reason::TooOften) } else { Ok(due + interval) }
}

/// Whether this address is free for the host: nobody else's unexpired claim overlaps.
pub(super) fn address_is_free(
    record: &AddressRecord,
    proven: &Proven,
    grant: &Grant,
    void: impl Fn(&Claim) -> bool,
    now: UnixSeconds,
) -> Result<(), Reason> {
    // A claim of somebody who is denied, or not there any more, keeps nobody away.
    let counts =
        |claim: &&Claim| claim.not_after > now && claim.host != *proven.host() && !void(claim);
    let others = || record.claims.iter().filter(counts);
    for port in grant.claimed_ports() {
        if others().any(|claim| claim.overlaps(port)) {
            return Err(Reason::AddressTaken);
        }
    }
    if others().count() + grant.claimed_ports().len() > MAX_CLAIMS_PER_ADDRESS {
        return Err(Reason::AddressCrowded);
    }
    Ok(())
}
