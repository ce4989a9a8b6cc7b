//! SVIDs read from chains: the accessors, and each reason for refusal under its own name.
//! Never: who signed them; `verify` asks that.

// SPDX-License-Identifier: Apache-2.0

use rcgen::{BasicConstraints, CertificateParams, IsCa};

use super::*;
use crate::testing::{HOUR, NOW, WEB, raw_sans, root, uri};

#[test]
fn svid_says_what_its_leaf_says() {
    let issuer = root("root").intermediate("intermediate");
    let leaf = issuer.leaf(WEB);
    let svid = Svid::from_chain(vec![leaf.der.clone(), issuer.der.clone()]).unwrap();
    assert_eq!(svid.id().as_str(), WEB);
    assert_eq!(svid.ip_sans().len(), 2);
    assert_eq!(svid.serial().as_bytes(), [0x11, 0x22]);
    assert_eq!((svid.not_before(), svid.not_after()), (NOW - HOUR, NOW + HOUR));
    assert!(svid.leaf().client_auth && svid.leaf().server_auth);
    assert_eq!(svid.leaf().key.as_bytes()[27..], leaf.key.public_key_raw()[1..]);
    assert_eq!(svid.chain(), [leaf.der, issuer.der]);
}

#[test]
fn leaf_that_is_no_svid_is_refused() {
    type Edit = fn(&mut CertificateParams);
    let issuer = root("root");
    let table: &[(SvidError, Edit)] = &[
        (SvidError::NoUri, |p| p.subject_alt_names.clear()),
        (SvidError::ManyUris { count: 2 }, |p| p.subject_alt_names.push(uri(WEB))),
        (SvidError::ManyUris { count: 3 }, |p| raw_sans(p, &[(6, b"\xff"), (6, b"a"), (6, b"b")])),
        (SvidError::IdNotText, |p| raw_sans(p, &[(6, b"\xff")])),
        (SvidError::Id(IdError::NoPath), |p| p.subject_alt_names = vec![uri("spiffe://td")]),
        (SvidError::Ca, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        (SvidError::NoExtendedKeyUsage, |p| p.extended_key_usages.clear()),
        (SvidError::KeyUsage("is absent; expected digitalSignature"), |p| p.key_usages.clear()),
    ];
    for (expected, edit) in table {
        let leaf = issuer.leaf_with(*edit);
        assert_eq!(Svid::from_chain(vec![leaf.der]), Err(expected.clone()));
    }
}

#[test]
fn chain_is_bounded() {
    let issuer = root("root");
    let leaf = issuer.leaf(WEB);
    assert_eq!(Svid::from_chain(vec![]), Err(SvidError::ChainLength { count: 0 }));
    assert!(Svid::from_chain(vec![leaf.der.clone(); MAX_CHAIN_CERTIFICATES]).is_ok());
    assert_eq!(
        Svid::from_chain(vec![leaf.der.clone(); MAX_CHAIN_CERTIFICATES + 1]),
        Err(SvidError::ChainLength { count: MAX_CHAIN_CERTIFICATES + 1 })
    );
    let junk = CertificateDer::from(vec![0; 10]);
    assert_eq!(
        Svid::from_chain(vec![leaf.der, junk]),
        Err(SvidError::Malformed(Malformed::NotDer))
    );
}

#[test]
fn mapped_address_is_read_as_the_ipv4_address() {
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 1, 2, 3]);
    let leaf = root("root").leaf_with(|p| raw_sans(p, &[(6, WEB.as_bytes()), (7, &mapped)]));
    let read = Leaf::read(&leaf.der).unwrap();
    assert_eq!(read.ip_sans, [IpAddr::from([10, 1, 2, 3])]);
}
