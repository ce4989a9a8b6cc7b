//! What the workload may have at this moment: its SVID and the bundle, judged together as a peer
//! would judge them, and the bundles of the foreign domains that the sidecar itself believes. Asked
//! by `follow` at each change.
//!
//! Never: an SVID that the bundle beside it does not verify, or one that is denied or expired; a
//! foreign root by which the sidecar would let nobody in.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use myelin_identity::bundle::{BundleHash, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::verify::Refusal;
use myelin_identity::{UnixTime, pem};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::Status;

use crate::addr::Clock;
use crate::credentials::{Snapshot, Standing, Store, WorkloadIdentity, WorkloadSvid};
use crate::proofs;

/// Where the answers come from.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) store: Arc<Store>,
    pub(super) identity: Arc<WorkloadIdentity>,
    pub(super) clock: Clock,
}

/// An SVID, the bundle that verifies it, and the bundles of others.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) svid: Arc<WorkloadSvid>,
    pub(super) bundle: Arc<TrustBundle>,
    pub(super) foreign: Vec<Roots>,
}

/// What names of one foreign trust domain are verified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roots {
    pub(super) trust_domain: TrustDomain,
    /// At least one.
    pub(super) roots: Vec<CertificateDer<'static>>,
}

/// Tells two offers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) serial: Option<String>,
    pub(super) bundle: BundleHash,
    /// Over all foreign bundles.
    pub(super) foreign: [u8; 32],
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (serial, [a, b, c, d, ..]) = (self.serial.as_deref().unwrap_or_default(), self.foreign);
        write!(f, "{serial}.{}.{:08x}", self.bundle, u32::from_be_bytes([a, b, c, d]))
    }
}

/// Ends when something may have changed.
pub(super) struct Changes {
    store: watch::Receiver<u64>,
    identity: watch::Receiver<Standing>,
}

impl Sources {
    pub(super) fn changes(&self) -> Changes {
        Changes { store: self.store.subscribe(), identity: self.identity.subscribe() }
    }

    /// `None`: nothing yet, and soon something. An error ends the workload's stream.
    pub(super) fn offer(&self) -> Result<Option<Offer>, Status> {
        let Some(snapshot) = self.store.load() else { return Ok(None) };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.clock.unix()));
        // What vouches may be withdrawn by its own serial.
        if let Err(refusal @ Refusal::Denied { .. }) = snapshot.still_trusted(now) {
            return Err(withdrawn(&refusal.to_string()));
        }
        let standing = self.identity.subscribe().borrow().clone();
        let svid = match standing {
            Standing::Pending => return Ok(None),
            Standing::Withdrawn { said, .. } => return Err(withdrawn(&said)),
            Standing::Held(svid) => svid,
        };
        let bundle = Arc::clone(&snapshot.bundle);
        match svid.peer.still_trusted(&bundle, &snapshot.deny, now) {
            Ok(()) => Ok(Some(Offer { svid, bundle, foreign: foreign(&snapshot) })),
            Err(refusal @ Refusal::Denied { .. }) => Err(withdrawn(&refusal.to_string())),
            Err(refusal @ Refusal::Expired { .. }) => Err(Status::unavailable(format!(
                "the workload's SVID has expired and the CA has not given another: {refusal}"
            ))),
            // Its root has just left the bundle: another SVID is on its way.
            Err(_) => Ok(None),
        }
    }
}

impl Offer {
    pub(super) fn version(&self) -> Version {
        let serial = Some(self.svid.svid.serial().to_string());
        let mut others = Context::new(&SHA256);
        for foreign in &self.foreign {
            for part in foreign.parts() {
                others.update(&(part.len() as u64).to_be_bytes());
                others.update(part);
            }
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(others.finish().as_ref());
        Version { serial, bundle: self.bundle.hash(), foreign: hash }
    }

    /// The own trust domain's.
    pub(super) fn own(&self) -> Roots {
        let roots = self.bundle.roots().cloned().collect();
        Roots { trust_domain: self.bundle.trust_domain().clone(), roots }
    }
}

impl Roots {
    /// `spiffe://` and the trust domain: how both APIs name a bundle.
    pub(super) fn name(&self) -> String {
        format!("spiffe://{}", self.trust_domain)
    }

    /// In DER, one after the other.
    pub(super) fn der(&self) -> Vec<u8> {
        self.roots.iter().flat_map(|root| root.to_vec()).collect()
    }

    pub(super) fn pem(&self) -> String {
        self.roots.iter().map(|root| pem::encode("CERTIFICATE", root)).collect()
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let name = self.trust_domain.as_str().as_bytes();
        std::iter::once(name).chain(self.roots.iter().map(AsRef::as_ref))
    }
}

fn foreign(snapshot: &Snapshot) -> Vec<Roots> {
    let held = snapshot.trust.foreign().bundles().iter().map(|foreign| Roots {
        trust_domain: foreign.trust_domain().clone(),
        roots: proofs::accepted_roots(foreign).cloned().collect(),
    });
    held.filter(|held| !held.roots.is_empty()).collect()
}

impl Changes {
    pub(super) async fn next(&mut self) {
        // Neither sender ends before the process does; if one did, the caller's own timer goes on.
        let changed = tokio::select! {
            changed = self.store.changed() => changed.is_ok(),
            changed = self.identity.changed() => changed.is_ok(),
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

fn withdrawn(said: &str) -> Status {
    Status::permission_denied(format!("this workload's identity is withdrawn: {said}"))
}
