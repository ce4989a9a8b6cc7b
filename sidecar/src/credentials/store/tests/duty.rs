//! Bundles that would demand less of peers than the one that is held, own and foreign. Run by cargo.
//!
//! Never: a log, or a proof; what a root names is all that counts here.

// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::credentials::testing::trust_domain;

/// Each row: the roots that are held, those that come, and whether they are taken over.
#[test]
fn a_bundle_that_adds_a_root_without_a_log_is_refused_where_a_root_names_one() {
    let (logged, also_logged) = (Root::logged(), Root::logged());
    let (plain, other_plain) = (Root::new(), Root::new());
    let bundle = |roots: &[&Root], generation| {
        let roots =
            roots.iter().flat_map(|root| root.bundle(1).roots().cloned().collect::<Vec<_>>());
        Arc::new(TrustBundle::new(trust_domain(), generation, roots.collect()).unwrap())
    };
    let table: [(&[&Root], &[&Root], bool); 7] = [
        (&[&logged], &[&logged, &also_logged], true),
        (&[&logged], &[&logged, &plain], false),
        (&[&logged, &plain], &[&logged, &plain], true),
        (&[&logged, &plain], &[&logged], true),
        // As many as before, but another one.
        (&[&logged, &plain], &[&logged, &other_plain], false),
        (&[&plain], &[&plain, &other_plain], true),
        (&[&plain], &[&plain, &logged], true),
    ];
    for (row, (held, comes, taken)) in table.into_iter().enumerate() {
        let store = store();
        let issue = |generation, known: &[&Root], roots: &[&Root]| Issued {
            bundle: bundle(roots, generation),
            known: bundle(known, 0),
            ..held[0].issue(WEB, 300)
        };
        // At the first SVID it is compared with what the CA was recognised by.
        let first = self::store().publish_svid(issue(1, held, comes), None);
        assert_eq!(first.is_ok(), taken, "first SVID, row {row}");
        store.publish_svid(issue(1, held, held), None).unwrap();
        let before = store.load().unwrap();
        let by_watch = store.publish_bundle(bundle(comes, 2));
        assert_eq!(by_watch.is_ok(), taken, "watch, row {row}");
        let renewed = store.publish_svid(issue(3, comes, comes), None);
        assert_eq!(renewed.is_ok(), taken, "renewal, row {row}");
        if let Err(why) = by_watch {
            assert!(matches!(why, Rejected::DutyTakenBack { generation: 2 }), "{why}");
            assert_eq!(why.word(), "duty_taken_back");
            assert!(Arc::ptr_eq(&before, &store.load().unwrap()), "row {row}");
        }
    }
}

#[test]
fn a_foreign_domain_needs_no_log_only_if_our_own_configuration_says_so_too() {
    let (root, theirs) = (Root::new(), Root::new());
    let b = TrustDomain::parse("b.example").unwrap();
    let said = |epoch, unlogged| {
        let roots = theirs.bundle(1).roots().cloned().collect();
        let bundle = Arc::new(TrustBundle::new(b.clone(), 1, roots).unwrap());
        ForeignBundles::new(epoch, vec![ForeignBundle { bundle, unlogged }]).unwrap()
    };
    let with = || domains(&["b.example"]);
    for (by_ca, by_us, accepted) in [
        (true, domains(&[]), false),
        (false, with(), false),
        (true, domains(&["c.example"]), false),
        (true, with(), true),
    ] {
        let store = store();
        store.publish_svid(root.issue(WEB, 300), None).unwrap();
        store.federate_with(with(), by_us).unwrap();
        let snapshot = store.publish_foreign(said(1, by_ca)).unwrap().unwrap();
        assert_eq!(snapshot.trust.view().is_unlogged(&b), accepted);
        // A reload takes it back.
        store.federate_with(with(), domains(&[])).unwrap();
        assert!(!store.load().unwrap().trust.view().is_unlogged(&b));
    }
}
