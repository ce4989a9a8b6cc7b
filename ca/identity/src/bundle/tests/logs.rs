//! Logs that a bundle states for roots whose certificates name none: in the hash and on paper, never
//! over a certificate's own word.
//! Never: proofs; `log` has those.

// SPDX-License-Identifier: Apache-2.0

use rcgen::CustomExtension;

use super::*;
use crate::log::{LOG_OID, named_log_extension};
use crate::testing::Authority;

fn log(name: &str) -> LogKey {
    LogKey::new(name, [7; 32]).unwrap()
}

/// As Myelin makes roots.
fn naming(log: &LogKey) -> Authority {
    let named = CustomExtension::from_oid_content(&LOG_OID, named_log_extension(log));
    root_with("ours", |params| params.custom_extensions = vec![named])
}

#[test]
fn stated_log_counts_where_the_certificate_names_none_and_never_over_it() {
    let (theirs, ours) = (root("theirs"), naming(&log("own")));
    let [plain, named] = [&theirs, &ours].map(|root| RootId::of(&root.der));
    let bundle = make(&[&theirs.der, &ours.der]).unwrap();
    assert_eq!(bundle.log_of(&plain), Ok(None));
    let stating = bundle.clone().stating(&log("kept"));
    assert_eq!(stating.log_of(&plain), Ok(Some(log("kept"))));
    assert_eq!(stating.log_of(&named), Ok(Some(log("own"))));
    let stated: Vec<_> = stating.stated_logs().collect();
    assert_eq!(stated, [(plain, &log("kept"))]);

    let refused = |stated: &[RootId]| {
        let stated = stated.iter().map(|root| (*root, log("kept")));
        matches!(bundle.clone().with_stated(stated), Err(BundleError::StatedLog { .. }))
    };
    let stranger = RootId::of(&root("stranger").der);
    for (wrong, why) in
        [(&[named][..], "names one"), (&[plain, plain], "twice"), (&[stranger], "not there")]
    {
        assert!(refused(wrong), "{why}");
    }
    assert!(!refused(&[plain]));
}

#[test]
fn stated_log_is_in_the_hash_and_only_ever_added() {
    let (a, b) = (root("a"), root("b"));
    let plain = make(&[&a.der, &b.der]).unwrap();
    let [one, other] = ["one", "other"].map(|name| plain.clone().stating(&log(name)));
    let half = plain.clone().with_stated([(RootId::of(&a.der), log("one"))]).unwrap();
    let hashes = [&plain, &one, &other, &half].map(TrustBundle::hash);
    for (n, hash) in hashes.iter().enumerate() {
        assert!(!hashes[n + 1..].contains(hash), "{n}");
    }
    for (new, old, expected) in [
        (&one, &plain, true),
        (&one, &half, true),
        (&one, &one, true),
        (&plain, &one, false),
        (&half, &one, false),
        (&other, &one, false),
        (&make(&[&a.der]).unwrap().stating(&log("one")), &plain, false),
        (&plain, &make(&[&a.der]).unwrap(), false),
    ] {
        assert_eq!(new.only_adds_logs_to(old), expected, "{new:?} to {old:?}");
    }
}

#[test]
fn stated_log_is_a_line_before_the_block_and_a_damaged_one_is_refused() {
    let bundle = bundle(&[&root("a"), &naming(&log("own"))]).stating(&log("kept"));
    let pem = bundle.to_pem();
    let line = format!("myelin-root-log: {}\n", log("kept"));
    assert!(pem.starts_with(&format!("{line}-----BEGIN")), "{pem}");
    assert_eq!(pem.matches("myelin-root-log").count(), 1);
    let read = |pem: &str| TrustBundle::from_pem(domain(), 7, pem);
    assert_eq!(read(&pem), Ok(bundle.clone()));
    let crlf = pem.replace('\n', "\r\n");
    assert_eq!(read(&crlf), Ok(bundle));
    assert!(matches!(read(&pem.replace("kept+", "lost+")), Err(BundleError::Pem { .. })));
    // Of a root that names its own.
    let moved = read(&pem.replace(&line, "")).unwrap();
    assert_eq!(moved.stated_logs().count(), 0);
    let second = pem.replace(&line, "").replacen("-----\n-----", &format!("-----\n{line}-----"), 1);
    assert!(matches!(read(&second), Err(BundleError::StatedLog { .. })), "{second}");
}

#[test]
fn no_step_takes_back_or_changes_a_stated_log() {
    let (old, new) = (root("old"), root("new"));
    let step = |number, bundle: TrustBundle, before| TrustStep {
        number,
        bundle,
        rung: Rung::Settled,
        active: RootId::of(&old.der),
        since: 1,
        before,
    };
    let of = |generation, roots: &[&Authority]| {
        let roots = roots.iter().map(|root| root.der.clone()).collect();
        TrustBundle::new(domain(), generation, roots).unwrap()
    };
    let first = step(1, of(1, &[&old]).stating(&log("kept")), [0; 32]);
    let kept = vec![(RootId::of(&old.der), log("kept"))];
    let changed = vec![(RootId::of(&old.der), log("other"))];
    let refused = Err(StepError::OtherLog { number: 2 });
    for (stated, expected) in [(kept, Ok(())), (changed, refused), (Vec::new(), refused)] {
        let bundle = of(2, &[&old, &new]).with_stated(stated).unwrap();
        let next = succession::signed(step(2, bundle, first.digest()), &old);
        assert_eq!(next.follows(&first), expected);
    }
    let plain = step(1, of(1, &[&old]), [0; 32]);
    assert_ne!(first.signed_bytes(), plain.signed_bytes());
}
