//! Deny lists: who may sign one, that a changed one is refused, that its bytes are canonical.
//! Never: peers; `verify` has those.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rcgen::IsCa;

use super::super::*;
use crate::id::SpiffeId;
use crate::testing::{Authority, HOUR, NOW, WEB, at, bundle, domain, now, root, valid};

fn entry(id: &str, until: u64) -> DenyEntry {
    DenyEntry { subject: DenySubject::Id(SpiffeId::parse(id).unwrap()), until }
}

fn serial(text: &str, until: u64) -> DenyEntry {
    DenyEntry { subject: DenySubject::Serial(text.parse().unwrap()), until }
}

fn sign(list: DenyList, signer: &Authority, trust_domain: &TrustDomain) -> SignedDenyList {
    let pkcs8 = signer.issuer.key().serialize_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).unwrap();
    let signature = key.sign(&SystemRandom::new(), &list.signed_bytes(trust_domain)).unwrap();
    SignedDenyList { list, signature: signature.as_ref().to_vec(), signer: signer.der.clone() }
}

#[test]
fn deny_list_is_believed_from_an_intermediate_only() {
    let (top, stranger) = (root("root"), root("stranger"));
    let held = bundle(&[&top]);
    let list = || DenyList::new(3, NOW, [entry(WEB, NOW + 9), serial("0abc", NOW + 5)]).unwrap();
    let signer = top.intermediate("intermediate");
    let good = sign(list(), &signer, &domain());
    assert_eq!(good.verify(&held, now()), Ok(&list()));

    let untrusted = DenyError::UntrustedSigner { generation: 7 };
    let not_valid =
        |not_before, not_after| DenyError::SignerNotValid { now: NOW, not_before, not_after };
    let over = top.intermediate_with("over", |p| valid(p, NOW - HOUR, NOW - 1));
    let early = top.intermediate_with("early", |p| valid(p, NOW + 1, NOW + HOUR));
    let no_ca = top.intermediate_with("no ca", |p| p.is_ca = IsCa::NoCa);
    let below = signer.intermediate("below");
    let other_domain = TrustDomain::parse("td2").unwrap();
    for (signed, expected) in [
        (sign(list(), &stranger.intermediate("intermediate"), &domain()), untrusted),
        (sign(list(), &root("root").intermediate("intermediate"), &domain()), untrusted),
        (sign(list(), &below, &domain()), untrusted),
        (sign(list(), &top, &domain()), DenyError::SignerIsRoot),
        (sign(list(), &no_ca, &domain()), DenyError::Signer(CaFault::NotCa)),
        (sign(list(), &over, &domain()), not_valid(NOW - HOUR, NOW - 1)),
        (sign(list(), &early, &domain()), not_valid(NOW + 1, NOW + HOUR)),
        (sign(list(), &signer, &other_domain), DenyError::BadSignature),
        (SignedDenyList { signature: vec![], ..good.clone() }, DenyError::BadSignature),
        (
            SignedDenyList { signer: top.intermediate("intermediate").der, ..good },
            DenyError::BadSignature,
        ),
    ] {
        assert_eq!(signed.verify(&held, now()), Err(expected));
    }
}

#[test]
fn changed_deny_list_is_refused() {
    let top = root("root");
    let signer = top.intermediate("intermediate");
    let good = DenyList::new(3, NOW, [entry(WEB, NOW + 9), serial("0abc", NOW + 5)]).unwrap();
    let signed = sign(good, &signer, &domain());
    for (epoch, said_at, entries) in [
        (4, NOW, vec![entry(WEB, NOW + 9), serial("0abc", NOW + 5)]),
        (3, NOW + 1, vec![entry(WEB, NOW + 9), serial("0abc", NOW + 5)]),
        (3, NOW, vec![entry(WEB, NOW + 8), serial("0abc", NOW + 5)]),
        (3, NOW, vec![entry(WEB, NOW + 9), serial("0abd", NOW + 5)]),
        (3, NOW, vec![entry(WEB, NOW + 9)]),
        (3, NOW, vec![]),
    ] {
        let list = DenyList::new(epoch, said_at, entries).unwrap();
        let changed = SignedDenyList { list, ..signed.clone() };
        assert_eq!(changed.verify(&bundle(&[&top]), now()), Err(DenyError::BadSignature));
    }
}

#[test]
fn deny_list_is_canonical_and_bounded() {
    let forward = DenyList::new(1, NOW, [entry(WEB, 5), serial("01", 6), entry(WEB, 4)]).unwrap();
    let backward = DenyList::new(1, NOW, [serial("01", 6), entry(WEB, 5)]).unwrap();
    assert_eq!(forward, backward);
    assert_eq!(forward.signed_bytes(&domain()), backward.signed_bytes(&domain()));
    assert_eq!(forward.entries().count(), 2);
    assert_eq!(DenyList::new(1, NOW, forward.entries()).unwrap(), forward);

    let many =
        |count: usize| DenyList::new(1, NOW, (1..=count).map(|n| serial(&format!("{n:08x}"), NOW)));
    assert!(many(MAX_DENY_ENTRIES).is_ok());
    assert_eq!(many(MAX_DENY_ENTRIES + 1), Err(DenyError::TooMany));
}

#[test]
fn later_end_of_id_and_serial_counts() {
    let list = DenyList::new(1, NOW, [entry(WEB, NOW + 5), serial("01", NOW + 9)]).unwrap();
    let (web, one) = (SpiffeId::parse(WEB).unwrap(), "01".parse().unwrap());
    assert_eq!(list.denied_until(&web, &one, now()), Some(NOW + 9));
    assert_eq!(list.denied_until(&web, &"02".parse().unwrap(), now()), Some(NOW + 5));
    assert_eq!(list.denied_until(&web, &"02".parse().unwrap(), at(NOW + 6)), None);
}
