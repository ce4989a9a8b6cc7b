//! The entries that one issue leaves in the journal, put together into its batch: certificate,
//! lineage, claims. Called by `authority::issue`.
//!
//! Never: commits.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};

use super::issue::Free;
use super::issued::Issued;
use super::seen::Seen;
use super::{Authority, IssueError};
use crate::attest::Proven;
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressRecord, Batch, Blob, BoundRecord, Claim, Entry, Grant, Held, Hex, HostRecord,
    IssuedRecord, LineageRecord, LineageState, Redeemed, TokenRecord,
};
use crate::template::Leaf;

impl Authority {
    /// The lineage's new head; the host's former lineage, if this is another, is superseded.
    pub(super) async fn write_lineage(
        &self,
        batch: &mut Batch,
        proven: &Proven,
        seen: &Seen,
        issued: &Issued,
    ) -> Result<(), IssueError> {
        let head = LineageRecord {
            host: proven.host().clone(),
            generation: issued.generation,
            serial: issued.serial.clone(),
            not_after: issued.not_after,
            request_key: proven.request_key().clone(),
            csr_key: proven.csr_fingerprint(),
            leaf_der: Blob(issued.chain[0].to_vec()),
            issuer: issued.issuer(),
            state: LineageState::Live,
            logged: issued.logged.clone(),
        };
        let advanced = seen.lineage.as_ref().filter(|_| issued.generation > 1);
        batch.put(&issued.lineage.to_string(), advanced, &head);
        if issued.generation > 1 {
            return Ok(());
        }
        if let Some(host) = &seen.host
            && let Some(former) = self.lineage(&host.record.lineage).await?
        {
            let state = LineageState::Superseded;
            batch.replace(&former, &LineageRecord { state, ..former.record.clone() });
        }
        Ok(())
    }

    /// The claims of this certificate in place of the host's former ones, wherever those were.
    #[allow(
        clippy::too_many_arguments,
        reason = "one commit, whose parts are decided in different places"
    )]
    pub(super) async fn write_claims(
        &self,
        batch: &mut Batch,
        proven: &Proven,
        seen: &Seen,
        grant: &Grant,
        free: &Free,
        issued: &Issued,
        now: UnixSeconds,
    ) -> Result<Vec<(IpAddr, AddressRecord)>, IssueError> {
        let former = seen.host.iter().flat_map(|host| &host.record.grant.addresses);
        let former: Vec<IpAddr> =
            former.filter(|address| !grant.addresses.contains(address)).copied().collect();
        let entries = self.claims_at(&former).await?;
        let addresses = free.addresses.iter().cloned().chain(former.into_iter().zip(entries));
        free.departed.write(batch);
        let root = self.rotation.root_of(&issued.chain[1]);
        let root = root.map_or_else(Hex::empty, |root| Hex(root.as_bytes().to_vec()));
        let mut written = Vec::new();
        for (address, entry) in addresses {
            let mut record = entry.as_ref().map(|entry| entry.record.clone()).unwrap_or_default();
            record.claims.retain(|claim| {
                claim.not_after > now
                    && claim.host != *proven.host()
                    && !seen.denied.holds(claim, now)
                    && !free.departed.holds(claim, address)
            });
            if grant.addresses.contains(&address) {
                record.claims.extend(grant.claimed_ports().into_iter().map(|port| Claim {
                    port,
                    spiffe_id: grant.spiffe_id.clone(),
                    protocol: grant.protocol.clone(),
                    host: proven.host().clone(),
                    serial: issued.serial.clone(),
                    not_after: issued.not_after,
                    root: root.clone(),
                }));
            }
            batch.put(&address.to_string(), entry.as_ref(), &record);
            written.push((address, record));
        }
        Ok(written)
    }
}

/// What the host holds from now on: what it held and has not expired, and this.
pub(super) fn held_with(
    host: Option<&Entry<HostRecord>>,
    issued: &Issued,
    now: UnixSeconds,
) -> Vec<Held> {
    let before = host.iter().flat_map(|host| host.record.unexpired(now)).cloned();
    let added = Held {
        serial: issued.serial.clone(),
        lineage: issued.lineage.clone(),
        generation: issued.generation,
        not_after: issued.not_after,
    };
    before.chain([added]).collect()
}

pub(super) fn write_certificate(
    batch: &mut Batch,
    proven: &Proven,
    issued: &Issued,
    leaf: &Leaf,
    now: UnixSeconds,
) {
    let record = IssuedRecord {
        spiffe_id: issued.spiffe_id.clone(),
        attestor: proven.attestor().to_owned(),
        host: proven.host().clone(),
        lineage: issued.lineage.clone(),
        generation: issued.generation,
        issued: now,
        not_before: leaf.validity.not_before,
        not_after: issued.not_after,
        leaf_sha256: Hex(digest(&SHA256, &issued.chain[0]).as_ref().to_vec()),
        logged: issued.logged.clone(),
    };
    // Created, not put: a serial that was there before is a conflict, and another serial is drawn.
    batch.create(&issued.serial.to_string(), &record);
}

/// The token is used up, if one was shown.
pub(super) fn write_token(
    batch: &mut Batch,
    proven: &Proven,
    seen: &Seen,
    issued: &Issued,
    now: UnixSeconds,
) {
    let Some(token) = &seen.token else { return };
    let (host, lineage) = (proven.host().clone(), issued.lineage.clone());
    let used = Some(Redeemed { at: now, host, lineage });
    batch.replace(token, &TokenRecord { used, ..token.record.clone() });
}

/// What rests on evidence from outside: the entries as they were, and the one host key that stands
/// for a pod or a machine from now on.
pub(super) fn write_outside(batch: &mut Batch, proven: &Proven, seen: &Seen, issued: &Issued) {
    let Some(outside) = &seen.outside else { return };
    outside.registered.expect(batch);
    if let Some(to) = proven.attested().and_then(|attested| attested.bound_to.as_ref()) {
        let record = BoundRecord { host: proven.host().clone(), not_after: issued.not_after };
        batch.put(&to.name.to_string(), outside.bound.as_ref(), &record);
    }
    if let Some(bearer) = &outside.bearer {
        // It was not denied, and is not now.
        batch.unchanged(bearer);
    }
}
