//! Two trust domains: each name under the roots of its own domain, and nobody's roots for another's
//! names; what is withdrawn ends; the bundle endpoint is exactly one ID.
//! Never: sockets.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::ServerName;

use super::super::{EndpointVerifier, Peer, Refusal, Role, peer};
use super::{Mesh, word};
use crate::bundle::{DenyList, ForeignBundle, ForeignBundles, TrustBundle, TrustBundles};
use crate::id::{SpiffeId, TrustDomain};
use crate::testing::{WEB, now};

const THEIR_WEB: &str = "spiffe://b.example/ns/shop/sa/web";
const THEIR_CA: &str = "spiffe://b.example/myelin/ca";

fn their_bundle(mesh: &Mesh, name: &str) -> Arc<TrustBundle> {
    let roots = vec![mesh.root.der.clone()];
    Arc::new(TrustBundle::new(TrustDomain::parse(name).unwrap(), 3, roots).unwrap())
}

/// We are `td`; `foreign` are the others that we federate with.
fn held(ours: &Mesh, foreign: &[Arc<TrustBundle>]) -> TrustBundles {
    let foreign = foreign
        .iter()
        .map(|bundle| ForeignBundle { bundle: bundle.clone(), unlogged: false })
        .collect();
    let foreign = Arc::new(ForeignBundles::new(1, foreign).unwrap());
    TrustBundles::new(Arc::new(ours.bundle.clone()), foreign)
}

fn judge(issuer: &Mesh, id: &str, bundles: &TrustBundles) -> Result<Peer, Refusal> {
    let leaf = issuer.intermediate.leaf(id);
    peer(&[leaf.der, issuer.intermediate.der.clone()], bundles, now(), Role::Server)
}

/// Meshes whose authorities have names of their own.
fn two() -> (Mesh, Mesh) {
    let theirs = crate::testing::root("root of b");
    let intermediate = theirs.intermediate("intermediate of b");
    let bundle = crate::testing::bundle(&[&theirs]);
    (Mesh::new(), Mesh { root: theirs, intermediate, bundle })
}

#[test]
fn a_chain_is_verified_only_under_the_bundle_of_its_own_domain() {
    let (ours, theirs) = two();
    let b = their_bundle(&theirs, "b.example");
    let both = held(&ours, std::slice::from_ref(&b));
    let alone = held(&ours, &[]);
    for (what, issuer, id, bundles, expected) in [
        ("ours", &ours, WEB, &both, "accepted"),
        ("theirs", &theirs, THEIR_WEB, &both, "accepted"),
        ("their root, our name", &theirs, WEB, &both, "untrusted_root"),
        ("our root, their name", &ours, THEIR_WEB, &both, "untrusted_root"),
        ("their root, our CA's name", &theirs, "spiffe://td/myelin/ca", &both, "untrusted_root"),
        ("their root, a third name", &theirs, "spiffe://c.example/x", &both, "wrong_trust_domain"),
        ("our root, a third name", &ours, "spiffe://c.example/x", &both, "wrong_trust_domain"),
        ("a subdomain", &theirs, "spiffe://a.b.example/x", &both, "wrong_trust_domain"),
        ("theirs, not federated", &theirs, THEIR_WEB, &alone, "wrong_trust_domain"),
        ("our root, not federated", &ours, THEIR_WEB, &alone, "wrong_trust_domain"),
    ] {
        assert_eq!(word(&judge(issuer, id, bundles)), expected, "{what}");
    }
}

#[test]
fn a_foreign_bundle_in_our_name_changes_nothing() {
    let (ours, theirs) = two();
    let bundles = held(&ours, &[their_bundle(&theirs, "td")]);
    assert_eq!(word(&judge(&theirs, WEB, &bundles)), "untrusted_root");
    assert_eq!(word(&judge(&ours, WEB, &bundles)), "accepted");
}

#[test]
fn a_peer_of_a_removed_domain_or_root_is_trusted_no_longer() {
    let (ours, theirs) = two();
    let (_, renewed) = two();
    let both = held(&ours, &[their_bundle(&theirs, "b.example")]);
    let them = judge(&theirs, THEIR_WEB, &both).unwrap();
    let us = judge(&ours, WEB, &both).unwrap();
    let nobody = DenyList::default();
    let verdict = |peer: &Peer, bundles: &TrustBundles| {
        peer.still_trusted(bundles, &nobody, now()).map_or_else(|why| why.word(), |()| "accepted")
    };
    let removed = held(&ours, &[]);
    let rotated = held(&ours, &[their_bundle(&renewed, "b.example")]);
    let elsewhere = held(&ours, &[their_bundle(&theirs, "c.example")]);
    assert_eq!(verdict(&them, &both), "accepted");
    assert_eq!(verdict(&them, &removed), "wrong_trust_domain");
    assert_eq!(verdict(&them, &rotated), "untrusted_root");
    assert_eq!(verdict(&them, &elsewhere), "wrong_trust_domain");
    for bundles in [&both, &removed, &rotated] {
        assert_eq!(verdict(&us, bundles), "accepted");
    }
}

#[test]
fn the_endpoint_is_exactly_one_id() {
    let (ours, theirs) = two();
    let named = |id: &str| {
        EndpointVerifier::new(their_bundle(&theirs, "b.example"), SpiffeId::parse(id).unwrap())
    };
    let name = ServerName::try_from("ca.b.example").unwrap();
    for (issuer, presented, expected_id, expected) in [
        (&theirs, THEIR_CA, THEIR_CA, "accepted"),
        (&theirs, THEIR_WEB, THEIR_CA, "wrong_peer"),
        (&theirs, THEIR_CA, THEIR_WEB, "wrong_peer"),
        (&ours, THEIR_CA, THEIR_CA, "untrusted_root"),
        (&theirs, "spiffe://td/myelin/ca", THEIR_CA, "wrong_trust_domain"),
    ] {
        let leaf = issuer.intermediate.leaf(presented);
        let issuers = [issuer.intermediate.der.clone()];
        let seen = named(expected_id).verify_server_cert(&leaf.der, &issuers, &name, &[], now());
        let seen = seen.map_or_else(
            |error| Refusal::of(&error).map_or("?", |refusal| refusal.word()),
            |_| "accepted",
        );
        assert_eq!(seen, expected, "{presented} as {expected_id}");
    }
}
