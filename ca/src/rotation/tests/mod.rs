//! When an issuer is due and what happens then; the ladder as a table, as a model, on a store that
//! fails at every commit, and on a store that somebody else has written to.
//!
//! Never: waits for real time.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::seal::SealKey;

mod crash;
mod damaged;
mod forged;
mod model;
mod replicas;
mod table;

use super::*;
use crate::store::embedded::Embedded;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

/// A replica's data directory and the store.
struct Place {
    dir: tempfile::TempDir,
    journal: Journal,
}

impl Place {
    fn pin(&self) -> Pin {
        Pin::at(self.dir.path().join("trust.pin"))
    }
}

async fn started(place: &Place, name: &str, key: u8, now: u64) -> Result<Rotation, RotationError> {
    let domain = TrustDomain::parse(name).unwrap();
    let home = Home { replica: ReplicaId::from_bytes([1; 8]), pin: place.pin() };
    let seal_key = SealKey::from_bytes([key; 32]);
    Rotation::start(place.journal.clone(), &domain, seal_key, home, now).await
}

/// Another replica on the same store, with a data directory of its own.
async fn replica(place: &Place, key: u8, number: u8, now: u64) -> Result<Rotation, RotationError> {
    let pin = Pin::at(place.dir.path().join(format!("trust-{number}.pin")));
    let home = Home { replica: ReplicaId::from_bytes([number; 8]), pin };
    let domain = TrustDomain::parse("prod.example").unwrap();
    let seal_key = SealKey::from_bytes([key; 32]);
    Rotation::start(place.journal.clone(), &domain, seal_key, home, now).await
}

async fn ours(place: &Place, now: u64) -> Rotation {
    started(place, "prod.example", 1, now).await.unwrap()
}

/// A move that somebody has permitted.
async fn climb(rotation: &Rotation, asked: ladder::Move, now: u64) -> Result<(), RotationError> {
    rotation.climb(asked, &rotation.step(), now).await
}

async fn lagging(rotation: &Rotation) -> Vec<String> {
    rotation.lagging(NOW).await.unwrap().replicas
}

fn scratch() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    Place { dir, journal: Journal::new(Arc::new(store)) }
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
    let place = scratch();
    let first = started(&place, "prod.example", 1, NOW).await.unwrap();
    let second = started(&place, "prod.example", 1, NOW + 5).await.unwrap();
    assert_eq!(first.bundle().hash(), second.bundle().hash());
    assert_eq!(first.signer().certificate(), second.signer().certificate());
    assert_eq!(first.signer().validity().not_after, NOW + 30 * DAY);
}

#[tokio::test]
async fn wrong_seal_key_and_wrong_trust_domain_are_refused() {
    let place = scratch();
    started(&place, "prod.example", 1, NOW).await.unwrap();
    let refused = started(&place, "prod.example", 2, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::Signer(_)), "{refused}");
    let refused = started(&place, "other.example", 1, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::OtherTrustDomain { .. }), "{refused}");
}

#[tokio::test]
async fn intermediate_is_renewed_at_half_life_under_the_same_root() {
    let place = scratch();
    let rotation = started(&place, "prod.example", 1, NOW).await.unwrap();
    let before = rotation.signer();
    assert_eq!(rotation.tick(NOW + 14 * DAY).await.unwrap(), Renewal::NotDue);
    assert_eq!(rotation.tick(NOW + 16 * DAY).await.unwrap(), Renewal::Renewed);
    let after = rotation.signer();
    assert_ne!(before.certificate(), after.certificate());
    assert_eq!(after.validity().not_after, NOW + 46 * DAY);
    assert_eq!(rotation.tick(NOW + 16 * DAY).await.unwrap(), Renewal::NotDue);
    // What was renewed is what a restart finds.
    let again = started(&place, "prod.example", 1, NOW + 17 * DAY).await.unwrap();
    assert_eq!(again.signer().certificate(), after.certificate());
}

#[tokio::test]
async fn intermediate_that_ended_while_the_ca_was_off_is_replaced_at_start() {
    let place = scratch();
    started(&place, "prod.example", 1, NOW).await.unwrap();
    let late = started(&place, "prod.example", 1, NOW + 100 * DAY).await.unwrap();
    assert!(late.signer().validity().not_after > NOW + 100 * DAY);
    let too_late = started(&place, "prod.example", 1, NOW + 3651 * DAY).await.err().unwrap();
    assert!(matches!(too_late, RotationError::RootExpired), "{too_late}");
}

#[tokio::test]
async fn whole_ladder_leads_from_one_root_to_another_and_its_key_goes_with_the_old_one() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let old = rotation.step().step.active;
    climb(&rotation, ladder::Move::Prepare, NOW).await.unwrap();
    assert_eq!((rotation.bundle().roots().len(), rotation.bundle().generation()), (2, 2));
    assert_eq!(rotation.tick(NOW).await.unwrap(), Renewal::NotDue, "the old root issues");
    climb(&rotation, ladder::Move::Activate, NOW + 1).await.unwrap();
    let new = rotation.step().step.active;
    assert_ne!(new, old);
    assert_eq!(lagging(&rotation).await, ["ca-replica/0101010101010101"]);
    assert_eq!(rotation.tick(NOW + 5).await.unwrap(), Renewal::Renewed);
    assert_eq!(rotation.root_of(rotation.signer().certificate()), Some(new));
    assert_eq!(lagging(&rotation).await, [""; 0]);
    climb(&rotation, ladder::Move::Retire, NOW + 2).await.unwrap();
    assert_eq!(rotation.bundle().root_ids().collect::<Vec<_>>(), [new]);
    assert!(place.journal.read::<IssuerRecord>(&root_name(&old)).await.unwrap().is_none());
    // Whoever knows the first bundle finds the way, also from a CA that was started anew.
    let again = ours(&place, NOW + 3).await;
    assert_eq!(again.step(), rotation.step());
    let first = again.steps()[0].step.bundle.hash();
    let domain = TrustDomain::parse("prod.example").unwrap();
    let found =
        myelin_identity::bundle::follow(&again.steps(), &domain, first, 1).unwrap().unwrap();
    assert_eq!(found, *again.bundle());
}

#[tokio::test]
async fn abort_goes_back_from_either_rung() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let old = rotation.step().step.active;
    climb(&rotation, ladder::Move::Prepare, NOW).await.unwrap();
    climb(&rotation, ladder::Move::Abort, NOW).await.unwrap();
    assert_eq!(rotation.bundle().root_ids().collect::<Vec<_>>(), [old]);
    assert_eq!(rotation.bundle().generation(), 3, "a generation never comes back");
    climb(&rotation, ladder::Move::Prepare, NOW).await.unwrap();
    climb(&rotation, ladder::Move::Activate, NOW).await.unwrap();
    climb(&rotation, ladder::Move::Abort, NOW).await.unwrap();
    assert_eq!(rotation.step().step.active, old);
    assert_eq!(rotation.bundle().roots().len(), 2, "what was issued since stays good");
    climb(&rotation, ladder::Move::Retire, NOW).await.unwrap();
    assert_eq!(rotation.bundle().root_ids().collect::<Vec<_>>(), [old]);
}

#[tokio::test]
async fn step_of_one_replica_is_found_by_the_other_and_two_at_once_are_one() {
    let place = scratch();
    let one = ours(&place, NOW).await;
    let other = replica(&place, 1, 2, NOW).await.unwrap();
    let on = other.step();
    climb(&one, ladder::Move::Prepare, NOW).await.unwrap();
    let late = other.climb(ladder::Move::Prepare, &on, NOW).await;
    assert!(matches!(late, Err(RotationError::Moved)), "{late:?}");
    assert_eq!(other.step(), one.step(), "the refusal has brought the news");
    climb(&other, ladder::Move::Activate, NOW).await.unwrap();
    assert!(one.refresh().await.unwrap());
    assert_eq!(other.step(), one.step());
    assert!(!one.refresh().await.unwrap());
}

#[tokio::test]
async fn intermediate_without_the_roots_key_is_not_renewed_and_says_so() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let name = root_name(&rotation.step().step.active);
    let key = place.journal.read::<IssuerRecord>(&name).await.unwrap().unwrap();
    let mut batch = Batch::default();
    batch.remove(&key);
    let _ = place.journal.commit(batch).await.unwrap();
    assert_eq!(rotation.tick(NOW + 16 * DAY).await.unwrap(), Renewal::NoRootKey);
    let refused = climb(&rotation, ladder::Move::Prepare, NOW).await;
    assert!(matches!(refused, Err(RotationError::NoRootKey { .. })), "{refused:?}");
    let validity = rotation.signer().validity();
    let life = validity.not_after - validity.not_before;
    for (left_percent, expected) in
        [(51, None), (50, None), (49, Some(50)), (24, Some(25)), (9, Some(10)), (0, Some(10))]
    {
        let now = validity.not_after - life * left_percent / 100;
        assert_eq!(ladder::alarm(validity, now), expected, "{left_percent}");
    }
}
