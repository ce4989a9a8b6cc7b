//! Later uses: was the right peer reached, and is it still good?
//! Never: a chain that is verified again; the peer is what is judged.

// SPDX-License-Identifier: Apache-2.0

use super::super::{Expected, Peer, Refusal};
use super::Mesh;
use crate::bundle::{DenyEntry, DenyList, DenySubject, TrustBundle};
use crate::id::{SpiffeId, TrustDomain};
use crate::testing::{HOUR, NOW, WEB, at, bundle, now, root};

fn web() -> (Mesh, Peer) {
    let mesh = Mesh::new();
    let peer = mesh.judge(&mesh.intermediate.leaf(WEB).der).unwrap();
    (mesh, peer)
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn word(verdict: Result<(), Refusal>) -> &'static str {
    verdict.map_or_else(|refusal| refusal.word(), |()| "accepted")
}

#[test]
fn other_peer_than_expected_is_refused() {
    let (_, peer) = web();
    let api = "spiffe://td/ns/shop/sa/api";
    for (ids, address, expected) in [
        (vec![WEB], None, "accepted"),
        (vec![api, WEB], None, "accepted"),
        (vec![WEB], Some("10.0.0.1"), "accepted"),
        (vec![WEB], Some("::ffff:10.0.0.1"), "accepted"),
        (vec![WEB], Some("fd00::1"), "accepted"),
        (vec![WEB], Some("10.0.0.2"), "wrong_address"),
        (vec![WEB], Some("fd00::2"), "wrong_address"),
        (vec![api], Some("10.0.0.1"), "wrong_peer"),
        (vec![], None, "wrong_peer"),
        (vec!["spiffe://td/ns/shop/sa/web2"], None, "wrong_peer"),
        (vec!["spiffe://td/ns/shop/sa/we"], None, "wrong_peer"),
        (vec!["spiffe://td/ns/shop/sa/we."], None, "wrong_peer"),
    ] {
        let meant = Expected {
            ids: ids.iter().map(|text| id(text)).collect(),
            address: address.map(|text| text.parse().unwrap()),
        };
        assert_eq!(word(meant.check(&peer)), expected, "{meant:?}");
    }
}

#[test]
fn refusal_of_a_long_list_stays_one_short_line() {
    let (_, peer) = web();
    let ids = (0..50).map(|n| id(&format!("spiffe://td/n{n}"))).collect();
    let line = Expected { ids, address: None }.check(&peer).unwrap_err().to_string();
    assert!(line.ends_with("spiffe://td/n2 or 47 more was expected"), "{line}");
}

#[test]
fn trust_is_judged_anew_at_each_use() {
    let (mesh, peer) = web();
    let nobody = DenyList::default();
    let other = bundle(&[&root("new root")]);
    let both = bundle(&[&root("new root"), &mesh.root]);
    let foreign =
        TrustBundle::new(TrustDomain::parse("td2").unwrap(), 1, vec![mesh.root.der.clone()])
            .unwrap();
    for (bundle, now, expected) in [
        (&mesh.bundle, NOW, "accepted"),
        (&mesh.bundle, NOW + HOUR, "accepted"),
        (&mesh.bundle, NOW + HOUR + 1, "expired"),
        (&both, NOW, "accepted"),
        (&other, NOW, "untrusted_root"),
        (&foreign, NOW, "wrong_trust_domain"),
    ] {
        assert_eq!(word(peer.still_trusted(bundle, &nobody, at(now))), expected);
    }
}

#[test]
fn denied_peer_is_refused_until_the_entry_ends() {
    let (mesh, peer) = web();
    let list = |subject| DenyList::new(1, NOW, [DenyEntry { subject, until: NOW + 10 }]).unwrap();
    for (subject, denied) in [
        (DenySubject::Id(id(WEB)), true),
        (DenySubject::Serial("1122".parse().unwrap()), true),
        (DenySubject::Id(id("spiffe://td/ns/shop/sa/web2")), false),
        (DenySubject::Serial("112233".parse().unwrap()), false),
    ] {
        let list = list(subject);
        assert_eq!(list.denies(&peer, now()), denied);
        assert_eq!(list.denies(&peer, at(NOW + 10)), denied);
        assert!(!list.denies(&peer, at(NOW + 11)));
        let expected = if denied { "denied" } else { "accepted" };
        assert_eq!(word(peer.still_trusted(&mesh.bundle, &list, now())), expected);
    }
}
