//! The check accepts what the signer wrote and refuses it against any other template.
//!
//! Never: tests the signer; its output is the raw material here.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::seal::SealKey;
use rcgen::{KeyPair, PublicKeyData as _};

use super::*;
use crate::signer::{Signer, Vault};

const NOW: u64 = 1_800_000_000;
const VALIDITY: Validity = Validity { not_before: NOW, not_after: NOW + 1000 };

fn issuing(name: &str) -> IssuerTemplate {
    IssuerTemplate {
        common_name: name.to_owned(),
        trust_domain: "prod.example".to_owned(),
        serial: Serial::from_random([9; 16]),
        validity: VALIDITY,
        path_length: None,
        extensions: Vec::new(),
    }
}

fn named(name: &str) -> Signer {
    let vault = Vault::sealed(SealKey::from_bytes([1; 32]));
    Signer::make_root(&issuing(name), &vault).unwrap().0
}

fn signer() -> Signer {
    named("test")
}

fn template() -> Leaf {
    Leaf {
        spiffe_id: "spiffe://prod.example/ns/shop/sa/web".to_owned(),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        names: Vec::new(),
        serial: Serial::from_random([1; 16]),
        validity: VALIDITY,
        public_key: KeyPair::generate().unwrap().subject_public_key_info(),
    }
}

#[test]
fn leaf_that_says_its_template_passes() {
    let (signer, template) = (signer(), template());
    let signed = signer.sign_leaf(&template).unwrap();
    assert_eq!(leaf(&signed, &template, signer.subject()), Ok(()));
}

#[test]
fn leaf_is_refused_against_a_template_that_differs_in_one_thing() {
    let (signer, truth) = (signer(), template());
    let signed = signer.sign_leaf(&truth).unwrap();
    let changed = |change: fn(&mut Leaf)| {
        let mut other = truth.clone();
        change(&mut other);
        leaf(&signed, &other, signer.subject()).unwrap_err().0
    };
    let table = [
        (changed(|leaf| leaf.spiffe_id.push('2')), "SPIFFE ID"),
        (changed(|leaf| leaf.addresses.truncate(1)), "addresses"),
        (changed(|leaf| leaf.names.push("a.example".to_owned())), "names"),
        (changed(|leaf| leaf.serial = Serial::from_random([2; 16])), "serial"),
        (changed(|leaf| leaf.validity.not_before += 1), "start"),
        (changed(|leaf| leaf.validity.not_after += 1), "end"),
        (changed(|leaf| leaf.public_key[90] ^= 1), "public key"),
    ];
    for (seen, expected) in table {
        assert_eq!(seen, expected);
    }
}

#[test]
fn leaf_of_another_issuer_or_damaged_is_refused() {
    let (signer_one, template) = (signer(), template());
    let signed = signer_one.sign_leaf(&template).unwrap();
    let other = named("other");
    assert_eq!(leaf(&signed, &template, other.subject()), Err(Mismatch("issuer")));
    let mut damaged = signed.to_vec();
    damaged.push(0);
    assert_eq!(leaf(&damaged, &template, signer_one.subject()), Err(Mismatch("encoding")));
}

#[test]
fn issuer_signed_by_another_key_of_the_same_name_is_refused() {
    let (above, other, vault) = (signer(), signer(), Vault::sealed(SealKey::from_bytes([1; 32])));
    let template = IssuerTemplate { path_length: Some(0), ..issuing("issuing") };
    let (below, _) = above.make_issuer(&template, &vault).unwrap();
    assert_eq!(issuer(below.certificate(), &template, above.certificate()), Ok(()));
    let refused = issuer(below.certificate(), &template, other.certificate());
    assert_eq!(refused, Err(Mismatch("signature")));
}

#[test]
fn issuer_certificate_in_place_of_a_leaf_is_refused() {
    let (signer, template) = (signer(), template());
    assert!(leaf(signer.certificate(), &template, signer.subject()).is_err());
}
