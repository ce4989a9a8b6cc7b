//! When an issuer is due, and what happens then.
//!
//! Never: waits for real time.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;

use myelin_identity::seal::SealKey;

use super::*;
use crate::store::embedded::Embedded;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

async fn started(
    journal: &Journal,
    name: &str,
    key: u8,
    now: u64,
) -> Result<Rotation, RotationError> {
    replica(journal, name, key, 1, now).await
}

async fn replica(
    journal: &Journal,
    name: &str,
    key: u8,
    replica: u8,
    now: u64,
) -> Result<Rotation, RotationError> {
    let (domain, key) = (TrustDomain::parse(name).unwrap(), SealKey::from_bytes([key; 32]));
    let replica = ReplicaId::from_bytes([replica; 8]);
    Rotation::start(journal.clone(), &domain, key, replica, now).await
}

fn scratch() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    (dir, Journal::new(Arc::new(store)))
}

#[test]
fn issuer_is_due_from_half_of_its_life() {
    let validity = Validity { not_before: NOW, not_after: NOW + 100 };
    for (at, expected) in
        [(0, Stage::Fresh), (49, Stage::Fresh), (50, Stage::Due), (200, Stage::Due)]
    {
        assert_eq!(stage(validity, NOW + at), expected, "{at}");
    }
}

#[tokio::test]
async fn first_start_makes_a_ca_and_the_second_opens_the_same() {
    let (_dir, journal) = scratch();
    let first = started(&journal, "prod.example", 1, NOW).await.unwrap();
    let second = started(&journal, "prod.example", 1, NOW + 5).await.unwrap();
    assert_eq!(first.bundle().hash(), second.bundle().hash());
    assert_eq!(first.signer().certificate(), second.signer().certificate());
    assert_eq!(first.signer().validity().not_after, NOW + 30 * DAY);
}

#[tokio::test]
async fn wrong_seal_key_and_wrong_trust_domain_are_refused() {
    let (_dir, journal) = scratch();
    started(&journal, "prod.example", 1, NOW).await.unwrap();
    let refused = started(&journal, "prod.example", 2, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::Signer(_)), "{refused}");
    let refused = started(&journal, "other.example", 1, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::OtherTrustDomain { .. }), "{refused}");
}

#[tokio::test]
async fn intermediate_is_renewed_at_half_life_under_the_same_root() {
    let (_dir, journal) = scratch();
    let rotation = started(&journal, "prod.example", 1, NOW).await.unwrap();
    let before = rotation.signer();
    assert!(!rotation.tick(NOW + 14 * DAY).await.unwrap());
    assert!(rotation.tick(NOW + 16 * DAY).await.unwrap());
    let after = rotation.signer();
    assert_ne!(before.certificate(), after.certificate());
    assert_eq!(after.validity().not_after, NOW + 46 * DAY);
    assert!(!rotation.tick(NOW + 16 * DAY).await.unwrap());
    // What was renewed is what a restart finds.
    let again = started(&journal, "prod.example", 1, NOW + 17 * DAY).await.unwrap();
    assert_eq!(again.signer().certificate(), after.certificate());
}

#[tokio::test]
async fn intermediate_that_ended_while_the_ca_was_off_is_replaced_at_start() {
    let (_dir, journal) = scratch();
    started(&journal, "prod.example", 1, NOW).await.unwrap();
    let late = started(&journal, "prod.example", 1, NOW + 100 * DAY).await.unwrap();
    assert!(late.signer().validity().not_after > NOW + 100 * DAY);
    let too_late = started(&journal, "prod.example", 1, NOW + 3651 * DAY).await.err().unwrap();
    assert!(matches!(too_late, RotationError::RootExpired), "{too_late}");
}

#[tokio::test]
async fn replicas_that_start_at_once_share_one_root_and_have_an_intermediate_each() {
    let (_dir, journal) = scratch();
    let starts: Vec<_> = (1..=5)
        .map(|id| {
            let journal = journal.clone();
            tokio::spawn(async move { replica(&journal, "prod.example", 1, id, NOW).await })
        })
        .collect();
    let (mut roots, mut intermediates) = (HashSet::new(), HashSet::new());
    for start in starts {
        let rotation = start.await.unwrap().unwrap();
        roots.insert(rotation.bundle().hash().to_string());
        intermediates.insert(rotation.signer().certificate().to_vec());
    }
    assert_eq!((roots.len(), intermediates.len()), (1, 5));
    let again = replica(&journal, "prod.example", 1, 3, NOW + 5).await.unwrap();
    assert!(intermediates.contains(&again.signer().certificate().to_vec()), "its own again");
}

#[tokio::test]
async fn replica_with_another_seal_key_is_told_that_all_share_one() {
    let (_dir, journal) = scratch();
    started(&journal, "prod.example", 1, NOW).await.unwrap();
    let refused = replica(&journal, "prod.example", 2, 2, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::OtherSealKey(_)), "{refused}");
    assert!(refused.to_string().contains("--seal-key-file"), "{refused}");
}

#[tokio::test]
async fn intermediate_from_before_replicas_becomes_the_first_ones_own() {
    let (_dir, journal) = scratch();
    let before = started(&journal, "prod.example", 1, NOW).await.unwrap();
    let own = issuing_name(&ReplicaId::from_bytes([1; 8]));
    let entry = journal.read::<IssuerRecord>(&own).await.unwrap().unwrap();
    let mut batch = Batch::default();
    batch.create(crate::journal::ISSUING, &entry.record);
    batch.remove(&entry);
    let _ = journal.commit(batch).await.unwrap();
    let first = replica(&journal, "prod.example", 1, 2, NOW).await.unwrap();
    assert_eq!(first.signer().certificate(), before.signer().certificate());
    let second = replica(&journal, "prod.example", 1, 3, NOW).await.unwrap();
    assert_ne!(second.signer().certificate(), before.signer().certificate());
}
