//! What the signer writes, read back; what it refuses to open.
//!
//! Never: a certificate that somebody else made.

// SPDX-License-Identifier: Apache-2.0

use rcgen::PublicKeyData as _;

use super::*;
use crate::check;

const NOW: u64 = 1_800_000_000;

fn template(serial: u8, path_length: Option<u8>) -> IssuerTemplate {
    IssuerTemplate {
        common_name: "test".to_owned(),
        trust_domain: "prod.example".to_owned(),
        serial: Serial::from_random([serial; 16]),
        validity: Validity { not_before: NOW, not_after: NOW + 1000 },
        path_length,
    }
}

#[test]
fn sealed_signer_is_opened_with_its_key_only_and_signs_as_before() {
    let (key, other) = (SealKey::from_bytes([1; 32]), SealKey::from_bytes([2; 32]));
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
    let key = SealKey::from_bytes([1; 32]);
    let (_, one) = Signer::make_root(&template(1, None), &key).unwrap();
    let (_, two) = Signer::make_root(&template(2, None), &key).unwrap();
    let mixed = SealedIssuer { certificate_der: one.certificate_der, sealed_key: two.sealed_key };
    assert!(matches!(Signer::open(&mixed, &key), Err(SignerError::Certificate(_))));
}

#[test]
fn private_key_does_not_rest_in_the_clear() {
    let key = SealKey::from_bytes([1; 32]);
    let (root, sealed) = Signer::make_root(&template(1, None), &key).unwrap();
    let secret = root.issuer.key().serialize_der();
    // The PKCS#8 of a P-256 key holds its 32 secret bytes from offset 36.
    let secret = &secret[36..68];
    assert!(!sealed.sealed_key.windows(secret.len()).any(|window| window == secret));
    assert!(root.issuer.key().subject_public_key_info().len() == 91);
}
