//! Several replicas on one store: one root, an intermediate each, one seal key.
//!
//! Never: more than one process.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;

use super::*;

#[tokio::test]
async fn replicas_that_start_at_once_share_one_root_and_have_an_intermediate_each() {
    let place = Arc::new(scratch());
    let starts: Vec<_> = (1..=5)
        .map(|id| {
            let place = place.clone();
            tokio::spawn(async move { replica(&place, 1, id, NOW).await })
        })
        .collect();
    let (mut roots, mut intermediates) = (HashSet::new(), HashSet::new());
    for start in starts {
        let rotation = start.await.unwrap().unwrap();
        roots.insert(rotation.bundle().hash().to_string());
        intermediates.insert(rotation.signer().certificate().to_vec());
    }
    assert_eq!((roots.len(), intermediates.len()), (1, 5));
    let again = replica(&place, 1, 3, NOW + 5).await.unwrap();
    assert!(intermediates.contains(&again.signer().certificate().to_vec()), "its own again");
}

#[tokio::test]
async fn replica_with_another_seal_key_is_told_that_all_share_one() {
    let place = scratch();
    ours(&place, NOW).await;
    let refused = replica(&place, 2, 2, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::OtherSealKey(_)), "{refused}");
    assert!(refused.to_string().contains("--seal-key-file"), "{refused}");
}

#[tokio::test]
async fn intermediate_from_before_replicas_becomes_the_first_ones_own() {
    let place = scratch();
    let before = ours(&place, NOW).await;
    let own = issuing_name(&ReplicaId::from_bytes([1; 8]));
    let entry = place.journal.read::<IssuerRecord>(&own).await.unwrap().unwrap();
    let mut batch = Batch::default();
    batch.create(crate::journal::ISSUING, &entry.record);
    batch.remove(&entry);
    let _ = place.journal.commit(batch).await.unwrap();
    let first = replica(&place, 1, 2, NOW).await.unwrap();
    assert_eq!(first.signer().certificate(), before.signer().certificate());
    let second = replica(&place, 1, 3, NOW).await.unwrap();
    assert_ne!(second.signer().certificate(), before.signer().certificate());
}

#[tokio::test]
async fn a_replica_that_lags_issues_nothing_and_is_named_until_it_follows() {
    let place = scratch();
    let (one, other) = (ours(&place, NOW).await, replica(&place, 1, 2, NOW).await.unwrap());
    climb(&one, ladder::Move::Prepare, NOW).await.unwrap();
    let before = other.signing().unwrap();
    assert!(other.refresh().await.unwrap());
    climb(&one, ladder::Move::Activate, NOW).await.unwrap();
    assert!(one.signing().is_none(), "its intermediate hangs under the old root still");
    one.tick(NOW).await.unwrap();
    let lagging = ["ca-replica/0202020202020202".to_owned()];
    assert_eq!(super::lagging(&one).await, lagging);

    // It has not heard of the step: what it signs is bound to the step before.
    for held in [before, other.signing().unwrap()] {
        assert_eq!(commits(&place, &held).await, Commit::Conflict);
    }
    assert!(other.refresh().await.unwrap());
    assert!(other.signing().is_none());
    assert_eq!(other.tick(NOW + 7).await.unwrap(), Renewal::Renewed);
    let now = other.signing().unwrap();
    assert!(matches!(commits(&place, &now).await, Commit::Committed { .. }));
    assert_eq!(super::lagging(&one).await, [""; 0]);
}

/// Whether something that was signed so may be handed out.
async fn commits(place: &Place, signing: &Signing) -> Commit {
    let mut batch = Batch::default();
    signing.bind(&mut batch);
    place.journal.commit(batch).await.unwrap()
}
