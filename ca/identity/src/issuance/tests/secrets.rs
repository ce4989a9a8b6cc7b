//! Join tokens, host proofs, and that no secret is printed on the way.
//! Never: a secret of fewer bytes than the real ones.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::signature::Ed25519KeyPair;
use proptest::prelude::*;

use super::super::*;
use super::request;
use crate::bundle::BundleHash;

#[test]
fn host_proof_holds_for_its_own_connection_request_and_key_only() {
    let make = || Ed25519KeyPair::generate().unwrap();
    let (host, other) = (make(), make());
    let of = HostSpki::of;
    let key = RequestKey::from_bytes([1; 16]);
    let signature = sign_host_proof(&host, &[2; 32], b"csr", &key);
    let verify = |spki: HostSpki, exporter: u8, csr: &[u8], key: u8, signature: &[u8]| {
        let key = RequestKey::from_bytes([key; 16]);
        verify_host_proof(&spki, &[exporter; 32], csr, &key, signature).is_ok()
    };
    assert!(verify(of(&host), 2, b"csr", 1, &signature));
    assert!(!verify(of(&other), 2, b"csr", 1, &signature));
    assert!(!verify(of(&host), 3, b"csr", 1, &signature));
    assert!(!verify(of(&host), 2, b"CSR", 1, &signature));
    assert!(!verify(of(&host), 2, b"csr", 2, &signature));
    assert!(!verify(of(&host), 2, b"csr", 1, &[signature, vec![0; 9]].concat()));
    assert!(!verify(of(&host), 2, b"csr", 1, b""));
    let unlabelled = &HostProof::bytes(&[2; 32], b"csr", &key)[15..];
    let bare = host.sign(unlabelled);
    assert!(!verify(of(&host), 2, b"csr", 1, bare.as_ref()));
}

#[test]
fn damaged_token_is_refused_with_the_remedy() {
    let token = JoinToken {
        secret: TokenSecret::from_bytes([7; 32]),
        bundle_hash: BundleHash::from_bytes([8; 32]),
    };
    let text = token.reveal();
    assert_eq!(format!("\t{text}\n").parse(), Ok(token.clone()));
    for (damaged, expected) in [
        (String::new(), TokenError::Prefix),
        (text.replace("mjt1", "mjt2"), TokenError::Prefix),
        (text[..40].to_owned(), TokenError::Length { bytes: 40 }),
        (text.replacen("BwcH", "B*cH", 1), TokenError::Secret),
        (text.replacen("BwcH", "B.cH", 1), TokenError::Secret),
        (text.replacen("0808", "08x8", 1), TokenError::BundleHash),
        (token.to_string(), TokenError::Length { bytes: 78 }),
    ] {
        assert_eq!(damaged.parse::<JoinToken>(), Err(expected), "{damaged}");
        assert!(expected.to_string().contains("token"));
    }
}

#[test]
fn secrets_are_not_printed() {
    let secret = TokenSecret::from_bytes([7; 32]);
    let token = JoinToken { secret: secret.clone(), bundle_hash: BundleHash::from_bytes([8; 32]) };
    let mut asked = request();
    let host_spki = *asked.attestation.host_spki();
    asked.attestation = Attestation::Join { secret: secret.clone(), host_spki };
    let wire = proto::IssueRequest::from(asked.clone());
    for text in [format!("{token} {token:?} {secret:?}"), format!("{asked:?}"), format!("{wire:?}")]
    {
        assert!(!text.contains("BwcH") && !text.contains("7, 7, 7, 7"), "{text}");
    }
    assert!(token.reveal().contains("BwcH"));
    assert_ne!(secret.stored_hash(), TokenSecret::from_bytes([6; 32]).stored_hash());
    assert_ne!(secret, TokenSecret::from_bytes([6; 32]));
}

#[test]
fn token_audience_names_the_trust_domain() {
    assert_eq!(token_audience(&crate::testing::domain()), "myelin-ca/td");
}

proptest! {
    #[test]
    fn tokens_round_trip(secret: [u8; 32], hash: [u8; 32]) {
        let token = JoinToken {
            secret: TokenSecret::from_bytes(secret),
            bundle_hash: BundleHash::from_bytes(hash),
        };
        prop_assert_eq!(token.reveal().parse::<JoinToken>().unwrap(), token);
    }
}
