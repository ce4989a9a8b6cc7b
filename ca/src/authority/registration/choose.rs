//! Which entry holds for a caller, and so what it is granted: a function of entries and evidence.
//! A deny entry wins over all; else the entry with the most selectors; else, for a pod, the ID of
//! its service account if its namespace is allowed as a whole.
//!
//! Never: chooses between two that are equally good.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use myelin_identity::id::{SpiffeId, TrustDomain};

use super::super::Reason;
use super::super::tokens::MAX_ADDRESSES;
use super::held::Named;
use super::{Registered, lies_within};
use crate::attest::{Attested, Selector};
use crate::journal::{AddressSource, Grant, Granted};

/// What the choice depends on beside entries and evidence.
pub(in super::super) struct Choice<'a> {
    pub(in super::super) trust_domain: &'a TrustDomain,
    /// Namespaces of which every service account has its own ID without an entry.
    pub(in super::super) namespaces: &'a [String],
    pub(in super::super) remote: IpAddr,
}

pub(in super::super) fn choose(
    registered: &Registered,
    attested: &Attested,
    choice: &Choice<'_>,
) -> Result<Grant, Reason> {
    let holds = |entry: &&Named| {
        let shown =
            |text: &String| attested.selectors.iter().map(Selector::as_str).any(|s| s == text);
        entry.record.selectors.iter().all(shown)
    };
    let holding: Vec<&Named> = registered.entries().iter().filter(holds).collect();
    if holding.iter().any(|entry| entry.record.grants.is_none()) {
        return Err(Reason::EntryDenied);
    }
    let most = holding.iter().map(|entry| entry.record.selectors.len()).max();
    let mut best = holding.iter().filter(|entry| Some(entry.record.selectors.len()) == most);
    match (best.next(), best.next()) {
        (Some(entry), None) => match &entry.record.grants {
            Some(granted) => grant(granted, attested, choice),
            None => Err(Reason::EntryDenied),
        },
        (Some(_), Some(_)) => Err(Reason::EntryAmbiguous),
        (None, _) => by_namespace(attested, choice),
    }
}

fn grant(granted: &Granted, attested: &Attested, choice: &Choice<'_>) -> Result<Grant, Reason> {
    let addresses = match &granted.addresses {
        AddressSource::Listed(addresses) => addresses.clone(),
        AddressSource::Caller { within } => whereabouts(attested, choice, within)?,
        AddressSource::Evidence => {
            let mut addresses = attested.addresses.clone();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
    };
    if !(1..=MAX_ADDRESSES).contains(&addresses.len()) {
        return Err(Reason::AddressUnknown);
    }
    let Granted { spiffe_id, ports, protocol, .. } = granted.clone();
    Ok(Grant { spiffe_id, addresses, ports, protocol })
}

fn by_namespace(attested: &Attested, choice: &Choice<'_>) -> Result<Grant, Reason> {
    let (namespace, account) = attested.service_account.as_ref().ok_or(Reason::EntryMissing)?;
    if !choice.namespaces.contains(namespace) {
        return Err(Reason::EntryMissing);
    }
    let id = SpiffeId::workload(choice.trust_domain, namespace, account)
        .map_err(|_| Reason::EntryMissing)?;
    let addresses = whereabouts(attested, choice, &[])?;
    let (ports, protocol) = (Vec::new(), String::new());
    Ok(Grant { spiffe_id: id.to_string(), addresses, ports, protocol })
}

/// Where a pod is by its own status, if that was asked for; else where the request comes from.
fn whereabouts(
    attested: &Attested,
    choice: &Choice<'_>,
    within: &[String],
) -> Result<Vec<IpAddr>, Reason> {
    if attested.service_account.is_none() || attested.addresses.is_empty() {
        return Ok(vec![caller(choice, within)?]);
    }
    if !attested.addresses.iter().all(|address| lies_within(*address, within)) {
        return Err(Reason::AddressUnknown);
    }
    Ok(attested.addresses.clone())
}

fn caller(choice: &Choice<'_>, within: &[String]) -> Result<IpAddr, Reason> {
    let address = choice.remote.to_canonical();
    if address.is_unspecified() || !lies_within(address, within) {
        return Err(Reason::AddressUnknown);
    }
    Ok(address)
}
