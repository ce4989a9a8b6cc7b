//! Sets of bundles: bounds, and that each name has one bundle, its own domain's.
//! Never: chains; `verify` has those.

// SPDX-License-Identifier: Apache-2.0

use rcgen::CustomExtension;

use super::*;
use crate::testing::Authority;

fn named(name: &str, roots: &[&Authority]) -> ForeignBundle {
    let roots = roots.iter().map(|root| root.der.clone()).collect();
    let bundle = TrustBundle::new(TrustDomain::parse(name).unwrap(), 3, roots).unwrap();
    ForeignBundle { bundle: std::sync::Arc::new(bundle), unlogged: false }
}

#[test]
fn each_domain_is_there_once_and_in_the_order_of_names() {
    let authority = root("root");
    let (b, c) = (named("b.example", &[&authority]), named("c.example", &[&authority]));
    let set = ForeignBundles::new(1, vec![c.clone(), b.clone()]).unwrap();
    assert_eq!(set.bundles(), [b.clone(), c]);
    let twice = ForeignBundles::new(1, vec![b.clone(), b.clone()]);
    assert_eq!(twice, Err(ForeignError::Twice(b.trust_domain().clone())));
}

#[test]
fn number_and_size_of_foreign_bundles_are_bounded() {
    let authority = root("root");
    let set = |count: usize| {
        let bundles = (0..count).map(|n| named(&format!("d{n}.example"), &[&authority])).collect();
        ForeignBundles::new(1, bundles)
    };
    assert!(set(MAX_FOREIGN).is_ok());
    assert_eq!(set(MAX_FOREIGN + 1), Err(ForeignError::TooMany { count: MAX_FOREIGN + 1 }));
    let fat = |n: u8| {
        root_with(&format!("fat {n}"), |params| {
            let padding = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![0; 7000]);
            params.custom_extensions.push(padding);
        })
    };
    let fat: Vec<_> = (0..5).map(fat).collect();
    let four = named("b.example", &fat[..4].iter().collect::<Vec<_>>());
    assert!(ForeignBundles::new(1, vec![four]).is_ok());
    let five = named("b.example", &fat.iter().collect::<Vec<_>>());
    let refused = ForeignBundles::new(1, vec![five]);
    assert!(matches!(refused, Err(ForeignError::TooBig { .. })), "{refused:?}");
}

#[test]
fn a_name_is_asked_under_the_bundle_of_its_own_domain_only() {
    let (ours, theirs, liar) = (root("ours"), root("theirs"), root("liar"));
    let own = std::sync::Arc::new(bundle(&[&ours]));
    let foreign = vec![named("b.example", &[&theirs]), named("td", &[&liar])];
    let foreign = ForeignBundles::new(4, foreign).unwrap();
    let bundles = TrustBundles::new(own.clone(), std::sync::Arc::new(foreign));
    let of = |name: &str| {
        let found = bundles.view().of(&TrustDomain::parse(name).unwrap());
        found.map(TrustBundle::hash)
    };
    // Nobody else's bundle speaks for our own domain.
    assert_eq!(of("td"), Some(own.hash()));
    assert_eq!(of("b.example"), Some(named("b.example", &[&theirs]).bundle.hash()));
    assert_eq!((of("c.example"), of("a.b.example")), (None, None));
    assert_eq!(Trust::from(&own).of(&TrustDomain::parse("b.example").unwrap()), None);
    assert_eq!(bundles.foreign().epoch(), 4);
}

#[test]
fn the_exception_from_proofs_is_for_the_domain_that_has_it() {
    let (ours, theirs) = (root("ours"), root("theirs"));
    let unlogged = ForeignBundle { unlogged: true, ..named("b.example", &[&theirs]) };
    let foreign = vec![unlogged, named("c.example", &[&theirs])];
    let foreign = std::sync::Arc::new(ForeignBundles::new(1, foreign).unwrap());
    let bundles = TrustBundles::new(std::sync::Arc::new(bundle(&[&ours])), foreign);
    for (name, expected) in [("td", false), ("b.example", true), ("c.example", false)] {
        let domain = TrustDomain::parse(name).unwrap();
        assert_eq!(bundles.view().is_unlogged(&domain), expected, "{name}");
    }
}
