//! What the signer writes, read back; what it refuses to open.
//!
//! Never: a certificate that somebody else made.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::encoding::AsBigEndian as _;
use myelin_identity::seal::SealKey;
use rcgen::PublicKeyData as _;

use super::*;
use crate::check;
use crate::template::Extension;

const NOW: u64 = 1_800_000_000;

fn template(serial: u8, path_length: Option<u8>) -> IssuerTemplate {
    IssuerTemplate {
        common_name: "test".to_owned(),
        trust_domain: "prod.example".to_owned(),
        serial: Serial::from_random([serial; 16]),
        validity: Validity { not_before: NOW, not_after: NOW + 1000 },
        path_length,
        extensions: Vec::new(),
    }
}

fn vault(byte: u8) -> Vault {
    Vault::sealed(SealKey::from_bytes([byte; 32]))
}

#[test]
fn sealed_signer_is_opened_with_its_key_only_and_signs_as_before() {
    let (key, other) = (vault(1), vault(2));
    let (root, sealed) = Signer::make_root(&template(1, None), &key).unwrap();
    let opened = Signer::open(&sealed, &key).unwrap();
    assert_eq!(opened.certificate(), root.certificate());
    assert_eq!(opened.validity(), root.validity());
    assert!(matches!(Signer::open(&sealed, &other), Err(SignerError::Sealed(_))));
    let issuing = template(2, Some(0));
    let (intermediate, _) = opened.make_issuer(&issuing, &key).unwrap();
    check::issuer(intermediate.certificate(), &issuing, root.certificate()).unwrap();
}

#[test]
fn key_under_another_certificate_is_refused() {
    let key = vault(1);
    let (_, one) = Signer::make_root(&template(1, None), &key).unwrap();
    let (_, two) = Signer::make_root(&template(2, None), &key).unwrap();
    let mixed = SealedIssuer { certificate_der: one.certificate_der, sealed_key: two.sealed_key };
    assert!(matches!(Signer::open(&mixed, &key), Err(SignerError::Certificate(_))));
}

#[test]
fn private_key_does_not_rest_in_the_clear() {
    let key = vault(1);
    let (root, sealed) = Signer::make_root(&template(1, None), &key).unwrap();
    let Key::Memory(pair) = &root.key else { panic!("it was made in memory") };
    let secret = pair.private_key().as_be_bytes().unwrap();
    let secret = secret.as_ref();
    assert_eq!(secret.len(), 32);
    assert!(!sealed.sealed_key.windows(secret.len()).any(|window| window == secret));
    assert_eq!(root.key.public().subject_public_key_info().len(), 91);
}

#[test]
fn extra_extension_of_an_intermediate_is_written_and_its_absence_is_seen() {
    let key = vault(1);
    let (root, _) = Signer::make_root(&template(1, None), &key).unwrap();
    let extra = Extension { oid: vec![1, 3, 6, 1, 4, 1, 99999, 1], der: vec![4, 2, 7, 7] };
    let named = IssuerTemplate { extensions: vec![extra], ..template(2, Some(0)) };
    let (with, _) = root.make_issuer(&named, &key).unwrap();
    check::issuer(with.certificate(), &named, root.certificate()).unwrap();
    let refused = check::issuer(with.certificate(), &template(2, Some(0)), root.certificate());
    assert!(refused.is_err());
    let (without, _) = root.make_issuer(&template(2, Some(0)), &key).unwrap();
    assert!(check::issuer(without.certificate(), &named, root.certificate()).is_err());
}
