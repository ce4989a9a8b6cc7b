//! Bundles as values: what is accepted, what is refused, that forms and hashes round-trip. Deny
//! lists are in `deny`.
//! Never: peers' chains; `verify` has those.

// SPDX-License-Identifier: Apache-2.0

mod deny;
mod foreign;
mod logs;
mod succession;

use proptest::prelude::*;
use rcgen::{IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;
use crate::testing::{bundle, domain, root, root_from, root_with};

fn make(roots: &[&CertificateDer<'static>]) -> Result<TrustBundle, BundleError> {
    TrustBundle::new(domain(), 1, roots.iter().map(|der| (*der).clone()).collect())
}

#[test]
fn roots_have_to_be_self_signed_ecdsa_cas() {
    let good = root("root");
    let p384 = root_from("p384", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), |_| {});
    assert!(make(&[&good.der, &p384.der]).is_ok());

    let in_first = |fault| Err(BundleError::Root { position: 1, fault });
    let ed25519 = root_from("ed", KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| {});
    let no_ca = root_with("no ca", |p| p.is_ca = IsCa::NoCa);
    let no_sign = root_with("no sign", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let mut forged = good.der.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let mut trailing = good.der.to_vec();
    trailing.push(0);
    for (der, expected) in [
        (&ed25519.der, in_first(CaFault::WrongKey)),
        (&no_ca.der, in_first(CaFault::NotCa)),
        (&no_sign.der, in_first(CaFault::NoKeyCertSign)),
        (&forged.into(), in_first(CaFault::BadSignature)),
        (&trailing.into(), in_first(CaFault::Malformed(Malformed::TrailingBytes))),
        (&vec![7; 40].into(), in_first(CaFault::Malformed(Malformed::NotDer))),
        (&good.intermediate("x").der, Err(BundleError::NotSelfIssued { position: 1 })),
    ] {
        assert_eq!(make(&[der]), expected);
    }
}

#[test]
fn number_of_roots_is_bounded() {
    assert_eq!(make(&[]), Err(BundleError::RootCount { count: 0 }));
    let roots: Vec<_> = (0..=MAX_ROOTS).map(|n| root(&format!("root {n}")).der).collect();
    let roots: Vec<_> = roots.iter().collect();
    assert!(make(&roots[..MAX_ROOTS]).is_ok());
    assert_eq!(make(&roots), Err(BundleError::RootCount { count: MAX_ROOTS + 1 }));
    assert_eq!(make(&[roots[0], roots[1], roots[0]]), Err(BundleError::Duplicate { position: 3 }));
}

#[test]
fn hash_depends_on_the_set_of_roots_only() {
    let (a, b) = (root("a"), root("b"));
    let hash = make(&[&a.der, &b.der]).unwrap().hash();
    assert_eq!(make(&[&b.der, &a.der]).unwrap().hash(), hash);
    assert_ne!(make(&[&a.der]).unwrap().hash(), hash);
    assert_eq!(hash.to_string().parse(), Ok(hash));
    let upper = hash.to_string().to_uppercase();
    for text in ["", "00", &upper, &format!("{hash}0"), &hash.to_string().replace('a', "g")[1..]] {
        assert_eq!(text.parse::<BundleHash>(), Err(HexError), "{text:?}");
    }
}

#[test]
fn pem_with_anything_but_certificates_is_refused() {
    let good = bundle(&[&root("root")]).to_pem();
    let read = |text: &str| TrustBundle::from_pem(domain(), 1, text);
    assert!(read(&format!("# a remark\n{good}")).is_ok());
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (text, expected) in [
        (String::new(), BundleError::RootCount { count: 0 }),
        (good.replace("-----END", "-----BEGONE"), BundleError::Pem { why: "a block is damaged" }),
        (good.clone() + &key, BundleError::Pem { why: "a block of another kind is there" }),
        (good.clone() + &good, BundleError::Duplicate { position: 2 }),
    ] {
        assert_eq!(read(&text), Err(expected), "{text}");
    }
    assert!(matches!(read(&good.repeat(1000)), Err(BundleError::TooBig { .. })));
}

#[test]
fn spiffe_json_is_read_as_the_specification_says() {
    let held = bundle(&[&root("a"), &root("b")]);
    let json: serde_json::Value = serde_json::from_str(&held.to_spiffe_json()).unwrap();
    assert_eq!(json["spiffe_sequence"], 7);
    assert_eq!(json["keys"][0]["use"], "x509-svid");
    assert_eq!(json["keys"][0]["kty"], "EC");
    let read =
        |json: &serde_json::Value| TrustBundle::from_spiffe_json(domain(), &json.to_string());
    assert_eq!(read(&json), Ok(held.clone()));

    let mut with_jwt = json.clone();
    with_jwt["keys"].as_array_mut().unwrap().push(serde_json::json!({
        "use": "jwt-svid", "kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB"
    }));
    assert_eq!(read(&with_jwt), Ok(held));

    let edit = |path: &str, value: serde_json::Value| {
        let mut json = json.clone();
        *json.pointer_mut(path).unwrap() = value;
        read(&json)
    };
    let both = json.pointer("/keys/0/x5c/0").cloned().unwrap();
    for (path, value) in [
        ("/keys/0/x5c", serde_json::json!([])),
        ("/keys/0/x5c", serde_json::json!([both, both])),
        ("/keys/0/x5c/0", "!".into()),
        ("/keys/0/x", "AAAA".into()),
        ("/keys/0/kty", "RSA".into()),
        ("/keys", "none".into()),
        ("/spiffe_sequence", (-1).into()),
    ] {
        let verdict = edit(path, value);
        assert!(matches!(verdict, Err(BundleError::Json { .. })), "{path}: {verdict:?}");
    }
    assert_eq!(edit("/keys", serde_json::json!([])), Err(BundleError::RootCount { count: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn bundles_round_trip_through_both_forms(
        names in proptest::collection::vec("[a-z ]{0,20}", 1..5),
        generation: u64,
        curve: bool,
    ) {
        let roots: Vec<_> = names
            .iter()
            .map(|name| {
                let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
                let algorithm = if curve { p256 } else { &PKCS_ECDSA_P384_SHA384 };
                root_from(name, KeyPair::generate_for(algorithm).unwrap(), |_| {}).der
            })
            .collect();
        let held = TrustBundle::new(domain(), generation, roots).unwrap();
        prop_assert_eq!(
            &TrustBundle::from_pem(domain(), generation, &held.to_pem()).unwrap(), &held
        );
        prop_assert_eq!(
            &TrustBundle::from_spiffe_json(domain(), &held.to_spiffe_json()).unwrap(), &held
        );
    }

    #[test]
    fn arbitrary_text_is_no_bundle(text: String) {
        prop_assert!(TrustBundle::from_pem(domain(), 1, &text).is_err());
        prop_assert!(TrustBundle::from_spiffe_json(domain(), &text).is_err());
    }
}
