//! Who stands in a pod's way: another pod, whose SVID claims an address that the cluster says is this
//! one's. If the cluster says as well that the other is gone, or lives elsewhere, that claim counts no
//! more; and the host key of a pod that is gone gets nothing from then on. Called by
//! `authority::issue`, for a pod that the API server was asked about itself.
//!
//! Never: takes silence for an answer, or an address from whoever is no pod.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::future::join_all;

use super::{Authority, IssueError};
use crate::attest::{Proven, Whereabouts};
use crate::clock::UnixSeconds;
use crate::journal::{AddressRecord, Batch, Claim, Entry, Hex, HostRecord, PodRecord};

/// Pods that are asked about for one address, all at the same time: as a rule there is one, who had
/// it before.
const MAX_ASKED: usize = 4;

/// Those of whom the cluster said where they are.
#[derive(Default)]
pub(super) struct Departed(Vec<Neighbour>);

struct Neighbour {
    name: Hex,
    host: Entry<HostRecord>,
    pod: PodRecord,
    whereabouts: Whereabouts,
}

impl Authority {
    /// Asks about the pods whose claims on this address are in the way of this caller.
    pub(super) async fn ask_about(
        &self,
        proven: &Proven,
        (address, record): (IpAddr, &AddressRecord),
        departed: &mut Departed,
        now: UnixSeconds,
    ) -> Result<(), IssueError> {
        let Some(attestors) = self.attestors.get() else { return Ok(()) };
        if !proven.attested().is_some_and(|it| it.is_said_to_live_at(address)) {
            return Ok(());
        }
        let others: BTreeSet<&Hex> = record
            .claims
            .iter()
            .filter(|claim| claim.not_after > now && claim.host != *proven.host())
            .map(|claim| &claim.host)
            .filter(|host| !departed.knows(host))
            .collect();
        if others.len() > MAX_ASKED {
            return Ok(());
        }
        let hosts = self.hosts(others.iter().copied()).await?;
        let pods = others.into_iter().zip(hosts).filter_map(|(name, host)| {
            let host = host?;
            let pod = host.record.pod.clone()?;
            Some((name.clone(), host, pod))
        });
        let asked = pods.map(|(name, host, pod)| async {
            let whereabouts =
                if pod.gone { Whereabouts::Gone } else { attestors.whereabouts(&pod).await };
            Neighbour { name, host, pod, whereabouts }
        });
        departed.0.extend(join_all(asked).await);
        Ok(())
    }
}

impl Departed {
    fn knows(&self, host: &Hex) -> bool {
        self.0.iter().any(|neighbour| neighbour.name == *host)
    }

    /// Whether a claim on this address is of somebody who is not there any more.
    pub(super) fn holds(&self, claim: &Claim, address: IpAddr) -> bool {
        let left = |it: &Neighbour| it.name == claim.host && it.whereabouts.is_not_at(address);
        self.0.iter().any(left)
    }

    /// What was asked holds for the host as it was; whoever is gone gets nothing any more.
    pub(super) fn write(&self, batch: &mut Batch) {
        for Neighbour { host, pod, whereabouts, .. } in &self.0 {
            match whereabouts {
                Whereabouts::Gone if !pod.gone => {
                    let pod = Some(PodRecord { gone: true, ..pod.clone() });
                    batch.replace(host, &HostRecord { pod, ..host.record.clone() });
                }
                Whereabouts::Gone | Whereabouts::At(_) => batch.unchanged(host),
                Whereabouts::Unknown => {}
            }
        }
    }

    /// An audit line for each address that was somebody's.
    pub(super) fn tell(&self, before: &[(IpAddr, Option<Entry<AddressRecord>>)]) {
        for (address, entry) in before {
            let claims = entry.iter().flat_map(|entry| &entry.record.claims);
            for claim in claims.filter(|claim| self.holds(claim, *address)) {
                let Some(was) = self.0.iter().find(|it| it.name == claim.host) else { continue };
                let PodRecord { namespace, name, uid, .. } = &was.pod;
                tracing::info!(
                    target: "audit", outcome = "address_released", id = %claim.spiffe_id,
                    serial = %claim.serial, addresses = ?[address], pod = %format_args!("{namespace}/{name}"),
                    uid, gone = matches!(was.whereabouts, Whereabouts::Gone), "address released"
                );
            }
        }
    }
}
