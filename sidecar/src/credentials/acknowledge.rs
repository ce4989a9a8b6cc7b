//! What we tell the CA about the bundle that we trust, so that a root can be retired when nobody stands
//! under it any more. Called by `watch` at each word of the CA.
//!
//! Never: speaks for a workload whose own SVID hangs under another root than ours.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::{BundleAck, proto};
use tokio::sync::mpsc;

use super::store::Store;
use super::workload::WorkloadIdentity;

/// Says which bundle we trust, under the SVID of this connection. We also speak for the workload
/// that holds an SVID of its own: not before that one hangs under the same root as ours, or
/// has ended. Its streams have the bundle at the instant at which we have it.
pub(super) fn acknowledge(
    store: &Store,
    workload: Option<&WorkloadIdentity>,
    now: u64,
    acks: &mpsc::Sender<proto::BundleAck>,
) {
    if let Some(snapshot) = store.load() {
        let root = snapshot.root();
        if workload.is_some_and(|workload| !workload.stands_under(root, now)) {
            return;
        }
        let generation = snapshot.bundle.generation();
        let ack = BundleAck { generation, deny_epoch: snapshot.deny.epoch() };
        // A full queue says what is as good: the CA has not read the last ones either, and the
        // next heartbeat brings another.
        let _ = acks.try_send(ack.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::store::{Issued, verified};
    use super::super::testing::{NOW, Root};
    use super::super::workload::WorkloadSvid;
    use super::*;
    use crate::addr::Clock;

    const WEB: &str = "spiffe://example.org/ns/shop/sa/web";

    /// The generation that is acknowledged now, if one is.
    fn said(store: &Store, workload: Option<&WorkloadIdentity>, now: u64) -> Option<u64> {
        let (acks, mut outgoing) = mpsc::channel(1);
        acknowledge(store, workload, now, &acks);
        outgoing.try_recv().ok().map(|ack| ack.generation)
    }

    #[test]
    fn a_bundle_is_acknowledged_only_when_the_workloads_own_svid_stands_under_it_too() {
        let [old, new] = [Root::new(), Root::new()];
        let of = |root: &Root| {
            let issued = root.issue(WEB, 300);
            let bundle = Arc::clone(&issued.bundle);
            let mine = verified(issued, &bundle, None, NOW).unwrap();
            WorkloadSvid { svid: mine.svid, peer: mine.own, key: mine.key }
        };
        let store = Store::new(Vec::new(), Clock::new(|| NOW), None);
        let workload = WorkloadIdentity::default();
        assert_eq!(said(&store, None, NOW), None, "there is no SVID to say it under");
        store.publish_svid(old.issue(WEB, 300), None).unwrap();
        assert_eq!(said(&store, Some(&workload), NOW), None, "an earlier run may have given one");
        workload.hold(of(&old));
        assert_eq!(said(&store, Some(&workload), NOW), Some(1));
        // Ours is renewed under the new root; what the workload holds still needs the old one.
        let both = Arc::new(new.bundle_with(&old, 2));
        store.publish_svid(Issued { bundle: both, ..new.issue(WEB, 300) }, None).unwrap();
        assert_eq!(said(&store, Some(&workload), NOW), None);
        assert_eq!(said(&store, Some(&workload), NOW + 301), Some(2), "it has ended");
        assert_eq!(said(&store, None, NOW), Some(2), "nobody else to speak for");
        workload.hold(of(&new));
        assert_eq!(said(&store, Some(&workload), NOW), Some(2));
    }
}
