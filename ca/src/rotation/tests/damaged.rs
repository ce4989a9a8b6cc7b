//! Records of the store that cannot be read: each is somebody who counts as lagging, by name, and
//! none of them keeps an operator from going back.
//!
//! Never: a record that is repaired by hand before the move.

// SPDX-License-Identifier: Apache-2.0

use super::ladder::Move;
use super::*;
use crate::journal::Record as _;
use crate::store::Write;

/// Writes what nobody can read over a record.
async fn damage(place: &Place, name: &str) {
    let key = format!("{}{name}", IssuerRecord::PREFIX);
    let write = Write::Put(key, b"{\"v\":1,\"rec".to_vec());
    let _ = place.journal.raw().commit(vec![], vec![write]).await.unwrap();
}

#[tokio::test]
async fn a_replica_whose_intermediate_cannot_be_read_lags_by_name() {
    let place = scratch();
    let one = ours(&place, NOW).await;
    let other = replica(&place, 1, 2, NOW).await.unwrap();
    for asked in [Move::Prepare, Move::Activate] {
        climb(&one, asked, NOW).await.unwrap();
    }
    one.tick(NOW).await.unwrap();
    assert!(other.refresh().await.unwrap());
    other.tick(NOW).await.unwrap();
    assert_eq!(lagging(&one).await, [""; 0]);
    damage(&place, &issuing_name(&ReplicaId::from_bytes([2; 8]))).await;
    let found = one.lagging(NOW).await.unwrap();
    assert_eq!(found.replicas, ["ca-replica/0202020202020202"]);
    assert_eq!(found.unreadable, ["issuer/issuing/0202020202020202"]);
    // A certificate that is none is as good as a record that is none.
    let name = issuing_name(&ReplicaId::from_bytes([1; 8]));
    let own = place.journal.read::<IssuerRecord>(&name).await.unwrap().unwrap();
    let mut batch = Batch::default();
    let certificate_der = crate::journal::Blob(vec![0x30, 0]);
    batch.replace(&own, &IssuerRecord { certificate_der, ..own.record.clone() });
    let _ = place.journal.commit(batch).await.unwrap();
    assert_eq!(one.lagging(NOW).await.unwrap().unreadable.len(), 2);
}

#[tokio::test]
async fn a_rotation_whose_new_root_s_key_is_damaged_is_gone_back_from_either_rung() {
    for rung in [Rung::Prepared, Rung::Activated] {
        let place = scratch();
        let rotation = ours(&place, NOW).await;
        let old = rotation.step().step.active;
        climb(&rotation, Move::Prepare, NOW).await.unwrap();
        let new = rotation.bundle().root_ids().find(|id| *id != old).unwrap();
        if rung == Rung::Activated {
            climb(&rotation, Move::Activate, NOW).await.unwrap();
        }
        damage(&place, &root_name(&new)).await;
        if rung == Rung::Activated {
            let refused = climb(&rotation, Move::Retire, NOW).await.unwrap_err();
            assert!(refused.to_string().contains("cannot be read"), "{refused}");
            // The root that issues again says so: the other one cannot.
            climb(&rotation, Move::Abort, NOW).await.unwrap();
            assert_eq!((rotation.step().step.active, rotation.step().signer), (old, old));
            climb(&rotation, Move::Retire, NOW).await.unwrap();
        } else {
            climb(&rotation, Move::Abort, NOW).await.unwrap();
        }
        assert_eq!(rotation.bundle().root_ids().collect::<Vec<_>>(), [old]);
        let key = place.journal.read::<IssuerRecord>(&root_name(&new)).await;
        assert!(key.unwrap().is_none(), "what is left of its key has gone with it");
        // It is a step like any other: a restart, and whoever slept, believes it.
        let again = ours(&place, NOW).await;
        assert!(again.ignored().is_none());
        assert_eq!(again.step(), rotation.step());
    }
}

#[tokio::test]
async fn a_damaged_key_of_the_root_that_stays_refuses_every_move_and_names_the_record() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let old = rotation.step().step.active;
    climb(&rotation, Move::Prepare, NOW).await.unwrap();
    damage(&place, &root_name(&old)).await;
    for asked in [Move::Activate, Move::Abort] {
        let refused = climb(&rotation, asked, NOW).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("issuer/root/{old}")), "{refused}");
    }
    assert_eq!(rotation.step().step.rung, Rung::Prepared);
}

#[tokio::test]
async fn what_an_operators_file_vouches_for_is_the_step_that_was_judged() {
    let place = scratch();
    let file = {
        let elsewhere = scratch();
        (*ours(&elsewhere, NOW).await.bundle()).clone()
    };
    let judged = adopt(&place.journal, &file).await.unwrap();
    // Somebody else writes to the store between the judgement and the pin.
    let other = scratch();
    let rogue = BundleRecord::from(&*ours(&other, NOW).await.step());
    let mut batch = Batch::default();
    batch.overwrite(CURRENT, &rogue);
    let _ = place.journal.commit(batch).await.unwrap();
    judged.pin(&place.pin()).unwrap();
    assert_eq!(place.pin().read().unwrap().unwrap().step.bundle.hash(), file.hash());
    // And whoever is judged now is refused.
    let refused = adopt(&place.journal, &file).await.unwrap_err();
    assert!(matches!(refused, RotationError::OtherRoot { .. }), "{refused}");
    // A replica that has a pin keeps it.
    let another = adopt(&other.journal, &rotation_bundle(&other).await).await.unwrap();
    another.pin(&place.pin()).unwrap();
    assert_eq!(place.pin().read().unwrap().unwrap().step.bundle.hash(), file.hash());
}

async fn rotation_bundle(place: &Place) -> TrustBundle {
    read_bundle(&place.journal).await.unwrap().unwrap()
}
