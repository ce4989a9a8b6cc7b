//! Tables for what the store takes over and what it refuses. Run by cargo.
//!
//! Never: sockets, sleeping, real time.

// SPDX-License-Identifier: Apache-2.0

mod duty;

use std::sync::atomic::{AtomicU64, Ordering};

use myelin_identity::bundle::{DenyEntry, DenySubject, ForeignBundle};

use super::*;
use crate::credentials::testing::{NOW, Root};

const WEB: &str = "spiffe://example.org/ns/shop/sa/web";
const DB: &str = "spiffe://example.org/ns/shop/sa/db";

fn store() -> Arc<Store> {
    Store::new(Vec::new(), Clock::new(|| NOW), None)
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn with_svid(root: &Root) -> Arc<Store> {
    let store = store();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    store
}

fn deny(epoch: u64, said_at: u64, denied: &[&str]) -> DenyList {
    let entries =
        denied.iter().map(|text| DenyEntry { subject: DenySubject::Id(id(text)), until: NOW + 9 });
    DenyList::new(epoch, said_at, entries).unwrap()
}

#[test]
fn before_the_first_svid_identity_is_pending() {
    let store = store();
    assert!(store.load().is_none());
    assert_eq!(store.usable(NOW).unwrap_err().word(), "identity_pending");
}

#[test]
fn usable_follows_the_validity_to_the_second() {
    let store = with_svid(&Root::new());
    for (now, expected) in [
        (NOW - 61, Some("identity_not_yet_valid")),
        (NOW - 60, None),
        (NOW + 300, None),
        (NOW + 301, Some("identity_expired")),
    ] {
        assert_eq!(store.usable(now).err().map(|error| error.word()), expected, "{now}");
    }
}

/// Whoever has the CA's own key, but no root's, cannot take a sidecar back to a root of his.
#[test]
fn a_first_answer_that_is_older_than_what_is_known_brings_no_root() {
    let (root, stranger) = (Root::new(), Root::new());
    for (generation, taken) in [(6, false), (7, true), (8, true)] {
        // What is as new or newer was vouched for before it came here.
        let known = Arc::new(root.bundle(7));
        let bundle = Arc::new(stranger.bundle(generation));
        let answer = Issued { known, bundle, ..stranger.issue(WEB, 300) };
        let published = store().publish_svid(answer, None);
        assert_eq!(published.is_ok(), taken, "generation {generation}");
    }
    let known = Arc::new(root.bundle(7));
    let answer = Issued { known, bundle: Arc::new(root.bundle(6)), ..root.issue(WEB, 300) };
    let snapshot = store().publish_svid(answer, None).unwrap();
    assert_eq!(snapshot.bundle.generation(), 7, "the twin: an SVID under what is held counts");
}

#[test]
fn each_publish_is_told_once_and_generations_grow_by_one() {
    let (root, other) = (Root::new(), Root::new());
    let store = store();
    let mut published = store.subscribe();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    assert_eq!(*published.borrow_and_update(), 1);
    store.publish_bundle(Arc::new(root.bundle_with(&other, 2))).unwrap().unwrap();
    assert_eq!(*published.borrow_and_update(), 2);
    store.publish_deny(&deny(1, NOW, &[DB])).unwrap().unwrap();
    assert_eq!(*published.borrow_and_update(), 3);
    assert_eq!(store.load().unwrap().generation, 3);
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.generation, 4);
    assert_eq!(snapshot.deny.epoch(), 1, "a renewal keeps the deny list");
    assert_eq!(snapshot.bundle.generation(), 2, "a renewal does not go back to an older bundle");
}

#[test]
fn whoever_was_denied_before_a_restart_is_denied_from_the_first_snapshot_on() {
    let root = Root::new();
    let store = store();
    store.remember_denied(Some(root.sign(deny(7, NOW, &[DB]))));
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    assert_eq!(*store.load().unwrap().deny, deny(7, NOW, &[DB]));
    // An older list than the one before the restart is refused, a newer one taken over.
    let older = store.publish_deny(&deny(6, NOW + 1, &[])).unwrap_err();
    assert!(matches!(older, Rejected::OlderDenyList { seen: 6, held: 7 }), "{older}");
    store.publish_deny(&deny(8, NOW + 1, &[])).unwrap().unwrap();
    assert_eq!(store.load().unwrap().deny.epoch(), 8);
}

#[test]
fn a_remembered_list_that_the_bundle_does_not_vouch_for_is_not_used() {
    let (root, other) = (Root::new(), Root::new());
    let mut changed = root.sign(deny(7, NOW, &[DB]));
    changed.list = deny(8, NOW, &[]);
    for remembered in [changed, other.sign(deny(7, NOW, &[DB]))] {
        let store = store();
        store.remember_denied(Some(remembered));
        store.publish_svid(root.issue(WEB, 300), None).unwrap();
        assert_eq!(store.load().unwrap().deny.epoch(), 0);
    }
}

#[test]
fn a_renewal_replaces_serial_and_key() {
    let root = Root::new();
    let store = with_svid(&root);
    let before = store.load().unwrap();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    let after = store.load().unwrap();
    assert_ne!(before.svid.serial(), after.svid.serial());
    assert_ne!(before.key().secret_der(), after.key().secret_der());
}

/// Each row is an SVID that must not be taken over, and leaves the one in use untouched.
#[test]
fn an_svid_that_is_not_what_was_asked_for_is_refused() {
    let (root, foreign) = (Root::new(), Root::new());
    let other_key = || Issued { spki: root.issue(WEB, 300).spki, ..root.issue(WEB, 300) };
    let no_chain = || Issued { chain: Vec::new(), ..root.issue(WEB, 300) };
    let foreign_chain = || Issued { bundle: root.bundle(1).into(), ..foreign.issue(WEB, 300) };
    type Case<'a> = (&'a str, Issued, fn(&Rejected) -> bool, &'static str);
    let cases: [Case<'_>; 7] = [
        ("key", other_key(), |r| matches!(r, Rejected::WrongKey), "svid_rejected"),
        ("shape", no_chain(), |r| matches!(r, Rejected::Malformed(_)), "svid_rejected"),
        ("root", foreign_chain(), |r| matches!(r, Rejected::Untrusted(_)), "svid_rejected"),
        ("id", root.issue(DB, 300), |r| matches!(r, Rejected::WrongId { .. }), "svid_rejected"),
        (
            "reserved",
            root.issue("spiffe://example.org/myelin/ca", 300),
            |r| matches!(r, Rejected::ReservedId { .. }),
            "svid_rejected",
        ),
        ("past", root.issue(WEB, -1), |r| matches!(r, Rejected::Clock { .. }), "clock_wrong"),
        (
            "future",
            root.issue_between(WEB, 3_600, 7_200),
            |r| matches!(r, Rejected::Clock { .. }),
            "clock_wrong",
        ),
    ];
    for (name, issued, expected, word) in cases {
        let store = with_svid(&root);
        let before = store.load().unwrap();
        let rejected = store.publish_svid(issued, None).unwrap_err();
        assert!(expected(&rejected), "{name}: {rejected}");
        assert_eq!(rejected.word(), word, "{name}");
        assert!(Arc::ptr_eq(&before, &store.load().unwrap()), "{name}");
    }
}

#[test]
fn the_first_svid_must_have_the_configured_id() {
    let root = Root::new();
    let store = store();
    let rejected = store.publish_svid(root.issue(DB, 300), Some(&id(WEB))).unwrap_err();
    assert!(matches!(rejected, Rejected::WrongId { .. }), "{rejected}");
    store.publish_svid(root.issue(WEB, 300), Some(&id(WEB))).unwrap();
}

#[test]
fn a_wrong_clock_is_named_with_all_three_times() {
    let rejected = store().publish_svid(Root::new().issue(WEB, -1), None).unwrap_err().to_string();
    for time in [NOW, NOW - 60, NOW - 1] {
        assert!(rejected.contains(&time.to_string()), "{rejected}");
    }
}

#[test]
fn a_bundle_goes_forward_and_never_back() {
    let (root, other) = (Root::new(), Root::new());
    let store = with_svid(&root);
    assert!(store.publish_bundle(Arc::new(root.bundle(1))).unwrap().is_none(), "nothing new");
    store.publish_bundle(Arc::new(root.bundle_with(&other, 3))).unwrap().unwrap();
    let rejected = store.publish_bundle(Arc::new(root.bundle(2))).unwrap_err();
    assert!(matches!(rejected, Rejected::OlderBundle { seen: 2, held: 3 }), "{rejected}");
    assert_eq!(store.load().unwrap().bundle.roots().len(), 2);
}

#[test]
fn a_bundle_without_our_own_root_waits_for_the_renewal_that_brings_both() {
    let (old, new) = (Root::new(), Root::new());
    let store = with_svid(&old);
    let rejected = store.publish_bundle(Arc::new(new.bundle(2))).unwrap_err();
    assert!(matches!(rejected, Rejected::RootRetired { generation: 2 }), "{rejected}");
    let issued = Issued { bundle: Arc::new(new.bundle(2)), ..new.issue(WEB, 300) };
    store.publish_svid(issued, None).unwrap();
    assert_eq!(store.load().unwrap().bundle.generation(), 2);
}

#[test]
fn deny_lists_go_forward_repeat_quietly_and_never_contradict_themselves() {
    let store = with_svid(&Root::new());
    // (epoch, said at, denied, published anew, refused)
    for (epoch, said_at, denied, published, refused) in [
        (0, NOW, &[][..], false, false),
        (3, NOW, &[DB][..], true, false),
        (3, NOW + 5, &[DB][..], false, false),
        (3, NOW + 5, &[DB, WEB][..], false, true),
        (2, NOW + 9, &[][..], false, true),
        (4, NOW + 9, &[][..], true, false),
    ] {
        let before = store.load().unwrap();
        let outcome = store.publish_deny(&deny(epoch, said_at, denied));
        assert_eq!(outcome.is_err(), refused, "epoch {epoch}: {outcome:?}");
        assert_eq!(outcome.is_ok_and(|new| new.is_some()), published, "epoch {epoch}");
        assert_eq!(!Arc::ptr_eq(&before, &store.load().unwrap()), published, "epoch {epoch}");
    }
}

#[test]
fn a_snapshot_in_hand_does_not_change_under_its_holder() {
    let root = Root::new();
    let store = with_svid(&root);
    let held = store.load().unwrap();
    let serial = held.svid.serial().clone();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    assert_eq!(held.svid.serial(), &serial);
    assert_ne!(store.load().unwrap().svid.serial(), &serial);
}

#[test]
fn other_alpns_make_a_new_generation_and_the_same_ones_do_not() {
    let store = with_svid(&Root::new());
    store.declare_alpns(vec![b"h2".to_vec()]).unwrap();
    assert_eq!(store.load().unwrap().generation, 2);
    store.declare_alpns(vec![b"h2".to_vec()]).unwrap();
    assert_eq!(store.load().unwrap().generation, 2);
}

/// Writers race; every reader sees whole snapshots whose generations only grow.
#[test]
fn readers_see_generations_grow_while_writers_race() {
    const ROUNDS: u64 = 20;
    let root = Root::new();
    let store = with_svid(&root);
    let running = AtomicU64::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                store.publish_svid(root.issue(WEB, 300), None).unwrap();
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
        scope.spawn(|| {
            for epoch in 1..=ROUNDS {
                store.publish_deny(&deny(epoch, NOW, &[DB])).unwrap();
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
        scope.spawn(|| {
            let mut last = (0, 0);
            while running.load(Ordering::SeqCst) > 0 {
                let snapshot = store.load().unwrap();
                let seen = (snapshot.generation, snapshot.deny.epoch());
                assert!(seen.0 >= last.0 && seen.1 >= last.1, "{last:?} then {seen:?}");
                last = seen;
            }
        });
    });
    let last = store.load().unwrap();
    assert_eq!((last.generation, last.deny.epoch()), (1 + 2 * ROUNDS, ROUNDS));
}

/// Bundles of foreign domains, each under a root of its own.
fn foreign(epoch: u64, domains: &[(&str, &Root)]) -> ForeignBundles {
    let bundles = domains.iter().map(|(name, root)| {
        let roots = root.bundle(1).roots().cloned().collect();
        let bundle = TrustBundle::new(TrustDomain::parse(name).unwrap(), 1, roots).unwrap();
        ForeignBundle { bundle: Arc::new(bundle), unlogged: false }
    });
    ForeignBundles::new(epoch, bundles.collect()).unwrap()
}

fn domains(names: &[&str]) -> BTreeSet<TrustDomain> {
    names.iter().map(|name| TrustDomain::parse(name).unwrap()).collect()
}

fn held(store: &Store) -> Vec<String> {
    let snapshot = store.load().unwrap();
    let bundles = snapshot.trust.foreign().bundles();
    bundles.iter().map(|foreign| foreign.trust_domain().to_string()).collect()
}

#[test]
fn only_the_foreign_domains_that_configuration_names_are_held() {
    let (root, b, c) = (Root::new(), Root::new(), Root::new());
    let store = store();
    store.federate_with(domains(&["b.example"]), domains(&[])).unwrap();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    let said = foreign(1, &[("b.example", &b), ("c.example", &c)]);
    let taken = store.publish_foreign(said).unwrap().unwrap();
    assert_eq!((taken.generation, held(&store)), (2, vec!["b.example".to_owned()]));
    // A change that is not for us drains no pool.
    let more = foreign(2, &[("b.example", &b), ("c.example", &c), ("d.example", &c)]);
    assert!(store.publish_foreign(more).unwrap().is_none());
    // What was said earlier counts as soon as it is wanted, and no longer than that.
    store.federate_with(domains(&["c.example", "d.example"]), domains(&[])).unwrap();
    assert_eq!(held(&store), ["c.example", "d.example"]);
    store.federate_with(domains(&[]), domains(&[])).unwrap();
    assert!(held(&store).is_empty());
}

#[test]
fn a_removed_domain_is_gone_and_a_renewal_does_not_bring_it_back() {
    let (root, b) = (Root::new(), Root::new());
    let store = with_svid(&root);
    store.federate_with(domains(&["b.example"]), domains(&[])).unwrap();
    store.publish_foreign(foreign(3, &[("b.example", &b)])).unwrap().unwrap();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    assert_eq!(held(&store), ["b.example"], "a renewal keeps it");
    store.publish_foreign(foreign(4, &[])).unwrap().unwrap();
    store.publish_svid(root.issue(WEB, 300), None).unwrap();
    assert!(held(&store).is_empty());
}

#[test]
fn older_or_contradictory_foreign_bundles_are_refused() {
    let (root, b, other) = (Root::new(), Root::new(), Root::new());
    let store = with_svid(&root);
    store.federate_with(domains(&["b.example"]), domains(&[])).unwrap();
    store.publish_foreign(foreign(3, &[("b.example", &b)])).unwrap().unwrap();
    let rejected = store.publish_foreign(foreign(2, &[])).unwrap_err();
    assert!(matches!(rejected, Rejected::OlderForeign { seen: 2, held: 3 }), "{rejected}");
    let rejected = store.publish_foreign(foreign(3, &[("b.example", &other)])).unwrap_err();
    assert!(matches!(rejected, Rejected::ContradictoryForeign { epoch: 3 }), "{rejected}");
    assert!(store.publish_foreign(foreign(3, &[("b.example", &b)])).unwrap().is_none());
    assert_eq!(held(&store), ["b.example"]);
}
