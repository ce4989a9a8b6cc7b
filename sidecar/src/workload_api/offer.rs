//! What the workload may have at this moment: its SVID and the bundle, judged together as a peer
//! would judge them. Asked by `follow` at each change.
//!
//! Never: an SVID that the bundle beside it does not verify, or one that is denied or expired.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::UnixTime;
use myelin_identity::bundle::{BundleHash, TrustBundle};
use myelin_identity::verify::Refusal;
use tokio::sync::watch;
use tonic::Status;

use crate::addr::Clock;
use crate::credentials::{Standing, Store, WorkloadIdentity, WorkloadSvid};

/// Where the answers come from.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) store: Arc<Store>,
    pub(super) identity: Arc<WorkloadIdentity>,
    pub(super) clock: Clock,
}

/// An SVID and the bundle that verifies it.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) svid: Arc<WorkloadSvid>,
    pub(super) bundle: Arc<TrustBundle>,
}

/// Tells two offers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) serial: Option<String>,
    pub(super) bundle: BundleHash,
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
            Standing::Withdrawn(said) => return Err(withdrawn(&said)),
            Standing::Held(svid) => svid,
        };
        let bundle = Arc::clone(&snapshot.bundle);
        match svid.peer.still_trusted(&bundle, &snapshot.deny, now) {
            Ok(()) => Ok(Some(Offer { svid, bundle })),
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
        Version { serial, bundle: self.bundle.hash() }
    }

    /// The roots in DER, one after the other.
    pub(super) fn roots_der(&self) -> Vec<u8> {
        self.bundle.roots().flat_map(|root| root.to_vec()).collect()
    }

    /// `spiffe://` and the trust domain: how both APIs name a bundle.
    pub(super) fn trust_domain_id(&self) -> String {
        format!("spiffe://{}", self.bundle.trust_domain())
    }
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
