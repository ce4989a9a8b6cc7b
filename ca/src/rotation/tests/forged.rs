//! T60 on a real journal: somebody who can write the store adds a root, moves the ladder, replays an
//! old record, removes it, or writes garbage. Nothing of it is believed, issuing goes on, and the
//! next true step heals the store.
//!
//! Never: a forger with a key that the CA trusts.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::Rung;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SigningKey as _};

use super::ladder::Move;
use super::*;
use crate::journal::{Blob, Hex, Record, RungName};
use crate::store::{Expect, Write};

async fn read(place: &Place) -> BundleRecord {
    place.journal.read::<BundleRecord>(CURRENT).await.unwrap().unwrap().record
}

/// Writes past every rule, as one can who owns the store.
async fn put(place: &Place, record: &BundleRecord) {
    let mut batch = Batch::default();
    batch.overwrite(CURRENT, record);
    batch.overwrite(&crate::journal::step_name(record.number), record);
    let _ = place.journal.commit(batch).await.unwrap();
}

fn thief() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (key, der)
}

fn forgeries(genuine: &BundleRecord) -> Vec<(&'static str, BundleRecord)> {
    let (key, root) = thief();
    let mut added = genuine.clone();
    added.roots_der.push(Blob(root.clone()));
    (added.number, added.generation) = (genuine.number + 1, genuine.generation + 1);
    added.before = Hex(SignedStep::try_from(genuine).unwrap().step.digest().to_vec());
    let mut by_itself = added.clone();
    by_itself.signer = Hex(RootId::of(&root).as_bytes().to_vec());
    let bytes = SignedStep::try_from(&by_itself).unwrap().step.signed_bytes();
    by_itself.signature = Blob(key.sign(&bytes).unwrap());
    let mut in_place = added.clone();
    (in_place.number, in_place.generation) = (genuine.number, genuine.generation);
    let mut moved = genuine.clone();
    moved.rung = RungName::Activated;
    let mut far = by_itself.clone();
    far.number = u64::MAX;
    vec![
        ("a root is added, nobody signs", added),
        ("a root is added, signed by itself", by_itself),
        ("the present record is changed in place", in_place),
        ("the ladder is moved", moved),
        ("a number from far away", far),
    ]
}

#[tokio::test]
async fn forged_records_are_ignored_said_and_healed() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let (held, genuine) = (rotation.step(), read(&place).await);
    for (what, forged) in forgeries(&genuine) {
        put(&place, &forged).await;
        assert!(!rotation.refresh().await.unwrap(), "{what}");
        assert_eq!(rotation.step(), held, "{what}");
        assert_eq!(rotation.ignored().unwrap().word, "unsigned", "{what}");
        // A start believes it no more than the running server did.
        let again = ours(&place, NOW).await;
        assert_eq!((again.step(), again.ignored().is_some()), (held.clone(), true), "{what}");
        // What is issued is bound to the record that was looked at, so it goes on.
        let mut batch = Batch::default();
        rotation.signing().unwrap().bind(&mut batch);
        assert!(matches!(place.journal.commit(batch).await.unwrap(), Commit::Committed { .. }));
    }
    climb(&rotation, Move::Prepare, NOW).await.unwrap();
    assert_eq!(rotation.ignored(), None);
    let again = ours(&place, NOW).await;
    assert_eq!((again.step(), again.ignored()), (rotation.step(), None));
    assert_eq!(again.step().step.rung, Rung::Prepared);
}

#[tokio::test]
async fn replayed_removed_and_garbled_records_are_ignored_said_and_healed() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let old = read(&place).await;
    climb(&rotation, Move::Prepare, NOW).await.unwrap();
    climb(&rotation, Move::Activate, NOW).await.unwrap();
    rotation.tick(NOW).await.unwrap();
    let held = rotation.step();
    put(&place, &old).await;
    assert!(!rotation.refresh().await.unwrap());
    assert_eq!(rotation.ignored().unwrap().word, "replayed");
    assert_eq!(ours(&place, NOW).await.step(), held);

    let key = format!("{}{CURRENT}", BundleRecord::PREFIX);
    for (word, write) in
        [("missing", Write::Delete(key.clone())), ("unreadable", Write::Put(key, b"{}".to_vec()))]
    {
        let _ = place.journal.raw().commit(Vec::<Expect>::new(), vec![write]).await.unwrap();
        assert!(!rotation.refresh().await.unwrap());
        assert_eq!(rotation.ignored().unwrap().word, word);
        assert_eq!(rotation.step(), held);
        assert_eq!(ours(&place, NOW).await.step(), held);
    }
    climb(&rotation, Move::Retire, NOW).await.unwrap();
    assert_eq!(ours(&place, NOW).await.step(), rotation.step());
}

#[tokio::test]
async fn a_replica_without_a_pin_believes_only_what_its_seal_key_opens() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let genuine = read(&place).await;
    std::fs::remove_file(place.pin().path()).unwrap();
    assert_eq!(ours(&place, NOW).await.step(), rotation.step());

    std::fs::remove_file(place.pin().path()).unwrap();
    let (key, root) = thief();
    let mut forged = genuine.clone();
    forged.roots_der = vec![Blob(root.clone())];
    let id = Hex(RootId::of(&root).as_bytes().to_vec());
    (forged.active, forged.signer) = (id.clone(), id);
    let bytes = SignedStep::try_from(&forged).unwrap().step.signed_bytes();
    forged.signature = Blob(key.sign(&bytes).unwrap());
    // The same as if the genuine root, whose key is here, had begun with it and signed nothing.
    let mut unsigned = forged.clone();
    unsigned.signer = genuine.signer.clone();
    unsigned.signature = Blob(Vec::new());
    for forged in [forged, unsigned] {
        put(&place, &forged).await;
        let refused = started(&place, "prod.example", 1, NOW).await.err().unwrap();
        assert!(matches!(refused, RotationError::NoAnchor(_)), "{refused}");
        assert!(!place.pin().path().exists(), "pinned all the same");
    }
}
