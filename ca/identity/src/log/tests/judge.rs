//! Whole proofs: each is believed as it is, and refused in its word with one thing wrong.
//! Never: dates and signatures of certificates, which `verify` judges.

// SPDX-License-Identifier: Apache-2.0

use rcgen::{CertificateParams, CustomExtension};

use super::super::*;
use super::{Log, Witness};
use crate::testing::{Authority, Minted, WEB, root_with};

struct Scene {
    root: Authority,
    intermediate: Authority,
    leaf: Minted,
    roots: Log,
    leaves: Log,
    proof: LogProof,
}

fn naming(log: &LogKey) -> impl FnOnce(&mut CertificateParams) + use<> {
    let extension = CustomExtension::from_oid_content(&LOG_OID, named_log_extension(log));
    move |params| params.custom_extensions.push(extension)
}

/// A root that names its log, an intermediate in it that names its own, a leaf in that.
fn scene() -> Scene {
    let (mut roots, mut leaves) = (Log::new("td/root", 1), Log::new("td/log", 2));
    let root = root_with("root", naming(&roots.key));
    let intermediate = root.intermediate_with("issuing", naming(&leaves.key));
    let leaf = intermediate.leaf(WEB);
    roots.append(b"an older intermediate");
    let issuer_index = roots.append(&entry_of(&intermediate.der, &root.der));
    (0..9_u8).for_each(|n| {
        leaves.append(&[n]);
    });
    let leaf_index = leaves.append(&entry_of(&leaf.der, &intermediate.der));
    leaves.append(b"a newer leaf");
    let proof = LogProof { leaf: leaves.prove(leaf_index), issuer: roots.prove(issuer_index) };
    Scene { root, intermediate, leaf, roots, leaves, proof }
}

impl Scene {
    fn judge(&self, witnesses: &Witnesses) -> Result<Verified, LogRefusal> {
        self.judge_bytes(&self.proof.encode().unwrap(), None, witnesses)
    }

    fn judge_bytes(
        &self,
        proof: &[u8],
        root_log: Option<&LogKey>,
        witnesses: &Witnesses,
    ) -> Result<Verified, LogRefusal> {
        let (leaf, intermediate, root) = (&self.leaf.der, &self.intermediate.der, &self.root.der);
        verify(proof, &Chain { leaf, intermediate, root }, root_log, witnesses)
    }

    fn word(&self) -> &'static str {
        self.judge(&Witnesses::default()).map_or_else(|refusal| refusal.word(), |_| "accepted")
    }
}

#[test]
fn logged_certificate_is_believed_and_says_where_it_is() {
    let scene = scene();
    let verified = scene.judge(&Witnesses::default()).unwrap();
    assert_eq!((verified.leaf_index, verified.leaf.size), (9, 11));
    assert_eq!((verified.issuer_index, verified.issuer.size), (1, 2));
    assert_eq!((&verified.leaf.log, &verified.issuer.log), (&scene.leaves.key, &scene.roots.key));
    assert_eq!(verified.leaf.note, scene.leaves.note());
}

#[test]
fn certificate_without_a_proof_is_not_logged() {
    let refused = scene().judge_bytes(&[], None, &Witnesses::default()).unwrap_err();
    assert_eq!(refused.word(), "not_logged");
}

#[test]
fn leaf_that_a_stolen_intermediate_key_signed_is_in_no_log() {
    let mut scene = scene();
    scene.leaf = scene.intermediate.leaf(WEB);
    assert_eq!(scene.word(), "log_proof_invalid");
}

#[test]
fn intermediate_that_is_not_in_the_roots_log_is_refused() {
    let mut scene = scene();
    scene.intermediate = scene.root.intermediate_with("secret", naming(&scene.leaves.key));
    scene.leaf = scene.intermediate.leaf(WEB);
    let index = scene.leaves.append(&entry_of(&scene.leaf.der, &scene.intermediate.der));
    scene.proof.leaf = scene.leaves.prove(index);
    assert_eq!(scene.word(), "log_proof_invalid");
}

#[test]
fn log_that_its_certificate_does_not_name_is_refused() {
    let mut scene = scene();
    let mut other = Log::new("td/log", 7);
    let index = other.append(&entry_of(&scene.leaf.der, &scene.intermediate.der));
    scene.proof.leaf = other.prove(index);
    assert_eq!(scene.word(), "log_proof_invalid");
    scene.proof.leaf = scene.roots.prove(0);
    assert_eq!(scene.word(), "log_proof_invalid");
}

#[test]
fn certificates_that_name_no_log_or_a_broken_one_are_refused() {
    let unnamed = Scene { intermediate: scene().root.intermediate("unnamed"), ..scene() };
    assert_eq!(unnamed.word(), "log_unknown");
    let broken = |params: &mut CertificateParams| {
        let extension = CustomExtension::from_oid_content(&LOG_OID, vec![0x30, 0]);
        params.custom_extensions.push(extension);
    };
    let broken =
        Scene { intermediate: scene().root.intermediate_with("broken", broken), ..scene() };
    assert_eq!(broken.word(), "log_unknown");
    let critical = |params: &mut CertificateParams| {
        let value = named_log_extension(&Log::new("td/log", 2).key);
        let mut extension = CustomExtension::from_oid_content(&LOG_OID, value);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let critical = Scene { intermediate: scene().root.intermediate_with("c", critical), ..scene() };
    assert_eq!(critical.word(), "log_unknown");
}

#[test]
fn root_that_names_no_log_has_the_one_that_the_bundle_states_for_it() {
    let mut scene = scene();
    scene.root = root_with("foreign", |_| {});
    scene.intermediate = scene.root.intermediate_with("issuing", naming(&scene.leaves.key));
    scene.leaf = scene.intermediate.leaf(WEB);
    let issuer = scene.roots.append(&entry_of(&scene.intermediate.der, &scene.root.der));
    let leaf = scene.leaves.append(&entry_of(&scene.leaf.der, &scene.intermediate.der));
    scene.proof = LogProof { leaf: scene.leaves.prove(leaf), issuer: scene.roots.prove(issuer) };
    assert_eq!(scene.word(), "log_unknown");
    let proof = scene.proof.encode().unwrap();
    let stated = scene.judge_bytes(&proof, Some(&scene.roots.key), &Witnesses::default());
    assert!(stated.is_ok(), "{stated:?}");
    let other = scene.judge_bytes(&proof, Some(&scene.leaves.key), &Witnesses::default());
    assert_eq!(other.unwrap_err().word(), "log_proof_invalid");
}

#[test]
fn bundle_does_not_overrule_the_log_that_a_root_names() {
    let scene = scene();
    let proof = scene.proof.encode().unwrap();
    let stated = scene.judge_bytes(&proof, Some(&scene.leaves.key), &Witnesses::default());
    assert!(stated.is_ok());
}

#[test]
fn both_checkpoints_need_as_many_witnesses_as_are_required() {
    let mut scene = scene();
    let (one, two) = (Witness::new("w1", 11), Witness::new("w2", 12));
    let keys = vec![one.key.clone(), two.key.clone()];
    let required = |quorum| Witnesses { keys: keys.clone(), quorum };
    one.cosign(&mut scene.proof.leaf.checkpoint, 5);
    two.cosign(&mut scene.proof.leaf.checkpoint, 5);
    one.cosign(&mut scene.proof.issuer.checkpoint, 5);
    assert!(scene.judge(&required(1)).is_ok());
    let refused = scene.judge(&required(2)).unwrap_err();
    assert_eq!(refused.word(), "log_witnesses_missing");
    two.cosign(&mut scene.proof.issuer.checkpoint, 5);
    assert!(scene.judge(&required(2)).is_ok());
    assert_eq!(scene.judge(&required(3)).unwrap_err().word(), "log_witnesses_missing");
}

#[test]
fn proof_that_was_changed_in_any_bit_is_refused() {
    let scene = scene();
    let proof = scene.proof.encode().unwrap();
    for at in 0..proof.len() {
        let mut changed = proof.clone();
        changed[at] ^= 1;
        assert!(scene.judge_bytes(&changed, None, &Witnesses::default()).is_err(), "byte {at}");
    }
}

#[test]
fn long_origins_are_named_and_read_back() {
    for length in [1, 60, 93, 94, 127, 128, 200, 255, 300] {
        let log = Log::new(&"o".repeat(length), 1).key;
        let root = root_with("root", naming(&log));
        assert_eq!(named_log(&root.der).unwrap(), Some(log), "{length}");
    }
    assert_eq!(named_log(&root_with("root", |_| {}).der).unwrap(), None);
    assert!(named_log(b"no certificate").is_err());
}
