//! What the judge remembers, forgets and refuses, with certificates made on the spot. What is a good
//! proof and what is not has its tables where proofs are read, in `myelin_identity::log`.
//!
//! Never: a log of more than one entry; the end-to-end suite has one.

// SPDX-License-Identifier: Apache-2.0

mod told;

use std::sync::Arc;

use myelin_identity::bundle::{ForeignBundle, ForeignBundles, RootId, TrustBundle, TrustBundles};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::{LOG_OID, named_log_extension};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
};

use super::*;
use crate::metrics::{Direction, Metrics};

const IN: Direction = Direction::Inbound;

/// A root that names this log, or none.
fn bundle(log: Option<&LogKey>) -> TrustBundle {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let names =
        log.map(|log| CustomExtension::from_oid_content(&LOG_OID, named_log_extension(log)));
    params.custom_extensions.extend(names);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let domain = TrustDomain::parse("example.org").unwrap();
    TrustBundle::new(domain, 1, vec![root.der().clone()]).unwrap()
}

fn log(name: &str) -> LogKey {
    LogKey::new(name, [7; 32]).unwrap()
}

fn judge() -> Arc<Judge> {
    Judge::new(Witnesses::default(), Arc::new(Metrics::new())).0
}

/// A peer of the bundle's domain whose path ended in `root`, in a mesh that knows no other domain.
fn judged(
    judge: &Judge,
    bundle: &TrustBundle,
    root: &RootId,
    proof: &[u8],
) -> Result<Standing, NotLogged> {
    let trust = TrustBundles::new(Arc::new(bundle.clone()), Arc::default());
    let path = Path { trust_domain: bundle.trust_domain(), root };
    judge.peer(trust.view(), path, &chain(), proof, IN)
}

fn chain() -> Vec<rustls::pki_types::CertificateDer<'static>> {
    vec![vec![1].into(), vec![2].into()]
}

#[test]
fn a_root_without_a_log_demands_no_proof_and_one_with_a_log_does() {
    let judge = judge();
    for (log, expected) in [(None, Ok(Standing::NoLog)), (Some(log("l")), Err("not_logged"))] {
        let bundle = bundle(log.as_ref());
        let root = bundle.root_ids().next().unwrap();
        for _ in 0..2 {
            let judged = judged(&judge, &bundle, &root, &[]);
            assert_eq!(judged.map_err(|why| why.word()), expected);
        }
    }
}

#[test]
fn a_log_that_the_bundle_states_for_a_root_is_insisted_on_as_if_the_root_named_it() {
    let judge = judge();
    let plain = bundle(None);
    let stating = plain.clone().stating(&log("kept"));
    assert_eq!((Duty::of(&plain).logged, Duty::of(&stating).logged), (0, 1));
    let root = plain.root_ids().next().unwrap();
    // What was judged while no log was known is judged again.
    assert_eq!(judged(&judge, &plain, &root, &[]), Ok(Standing::NoLog));
    assert_eq!(judged(&judge, &stating, &root, &[]).unwrap_err().word(), "not_logged");
    let trust = TrustBundles::new(Arc::new(stating.clone()), Arc::default());
    let path = Path { trust_domain: stating.trust_domain(), root: &root };
    let why = judge.plain_mtls(trust.view(), path, false, IN).unwrap_err();
    assert_eq!(why.word(), "plain_mtls_undeclared");
    assert_eq!(judge.plain_mtls(trust.view(), path, true, IN), Ok(Standing::Exempt));
}

#[test]
fn a_bundle_that_takes_a_stated_log_back_demands_less() {
    let (a, b) = (bundle(None), bundle(None));
    let of = |bundles: &[&TrustBundle], stated: Option<(&TrustBundle, &str)>| {
        let roots = bundles.iter().flat_map(|bundle| bundle.roots().cloned()).collect();
        let both = TrustBundle::new(a.trust_domain().clone(), 1, roots).unwrap();
        let stated = stated.map(|(of, name)| (of.root_ids().next().unwrap(), log(name)));
        both.with_stated(stated).unwrap()
    };
    let held = of(&[&a], Some((&a, "kept")));
    for (new, expected) in [
        (held.clone(), false),
        (of(&[&a], None), true),
        (of(&[&a], Some((&a, "other"))), true),
        (of(&[&a, &b], Some((&a, "kept"))), true),
        (of(&[&b], Some((&b, "kept"))), false),
    ] {
        assert_eq!(takes_duty_back(&held, &new), expected, "{new:?}");
    }
    assert!(!takes_duty_back(&of(&[&a], None), &held));
}

#[test]
fn a_foreign_root_without_a_log_needs_the_operators_word_and_a_refusal_is_counted() {
    let own = Arc::new(bundle(None));
    let theirs = |log: Option<&LogKey>, unlogged| {
        let roots = bundle(log).roots().cloned().collect();
        let domain = TrustDomain::parse("b.example").unwrap();
        let bundle = Arc::new(TrustBundle::new(domain, 1, roots).unwrap());
        let foreign = ForeignBundles::new(1, vec![ForeignBundle { bundle, unlogged }]).unwrap();
        TrustBundles::new(own.clone(), Arc::new(foreign))
    };
    let log = log("l");
    for (names, unlogged, shown, plain) in [
        (None, false, "foreign_unlogged", "foreign_unlogged"),
        (None, true, "no_log", "no_log"),
        // A root that names a log makes it a duty, whatever was accepted.
        (Some(&log), false, "not_logged", "exempt"),
        (Some(&log), true, "not_logged", "exempt"),
    ] {
        let metrics = Arc::new(Metrics::new());
        let judge = Judge::new(Witnesses::default(), Arc::clone(&metrics)).0;
        let trust = theirs(names, unlogged);
        let foreign = &trust.foreign().bundles()[0].bundle;
        let root = foreign.root_ids().next().unwrap();
        let path = Path { trust_domain: foreign.trust_domain(), root: &root };
        let said = judge.peer(trust.view(), path, &chain(), &[], IN);
        assert_eq!(said.is_ok(), shown == "no_log", "{said:?}");
        counted(&metrics, shown);
        let metrics = Arc::new(Metrics::new());
        let judge = Judge::new(Witnesses::default(), Arc::clone(&metrics)).0;
        let said = judge.plain_mtls(trust.view(), path, true, IN);
        assert_eq!(said.is_ok(), plain != "foreign_unlogged", "{said:?}");
        counted(&metrics, plain);
        // Ours needs nobody's word, and a domain that is gone has no bundle.
        let root = own.root_ids().next().unwrap();
        assert_eq!(judged(&judge, &own, &root, &[]), Ok(Standing::NoLog));
        let gone = TrustDomain::parse("c.example").unwrap();
        let path = Path { trust_domain: &gone, root: &root };
        assert!(judge.peer(trust.view(), path, &chain(), &[], IN).is_err());
    }
}

fn counted(metrics: &Metrics, outcome: &str) {
    let row = format!("log_proofs_total{{direction=\"inbound\",outcome=\"{outcome}\"}} 1");
    assert!(metrics.render().contains(&row), "{row}: {}", metrics.render());
}

#[test]
fn a_name_of_a_log_that_cannot_be_read_demands_a_proof_that_nobody_has() {
    let log = log("l");
    let mut broken = named_log_extension(&log);
    broken.push(0);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&LOG_OID, broken)];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let domain = TrustDomain::parse("example.org").unwrap();
    let bundle = TrustBundle::new(domain, 1, vec![root.der().clone()]).unwrap();
    assert_eq!(Duty::of(&bundle), Duty { roots: 1, logged: 1 });
    let root = bundle.root_ids().next().unwrap();
    let why = judged(&judge(), &bundle, &root, &[]).unwrap_err();
    assert_eq!(why.word(), "not_logged");
}

#[test]
fn a_chain_of_another_length_is_refused_before_its_proof_is_read() {
    let bundle = bundle(Some(&log("l")));
    let root = bundle.root_ids().next().unwrap();
    let judge = judge();
    for length in [0, 1, 3] {
        let chain = vec![vec![9].into(); length];
        let trust = TrustBundles::new(Arc::new(bundle.clone()), Arc::default());
        let path = Path { trust_domain: bundle.trust_domain(), root: &root };
        let why = judge.peer(trust.view(), path, &chain, &[1, 2, 3], IN).unwrap_err();
        assert_eq!(why, NotLogged::Chain { seen: length });
    }
}

#[test]
fn a_root_that_the_bundle_does_not_hold_satisfies_nobody() {
    let (ours, other) = (bundle(None), bundle(None));
    let root = other.root_ids().next().unwrap();
    let why = judged(&judge(), &ours, &root, &[]).unwrap_err();
    assert_eq!(why.word(), "log_unknown");
}

#[test]
fn plain_mtls_is_exempt_only_where_our_own_configuration_says_so() {
    let (plain, logged) = (bundle(None), bundle(Some(&log("l"))));
    let judge = judge();
    for (bundle, declared, expected) in [
        (&plain, false, Ok(Standing::NoLog)),
        (&plain, true, Ok(Standing::NoLog)),
        (&logged, true, Ok(Standing::Exempt)),
        (&logged, false, Err("plain_mtls_undeclared")),
    ] {
        let root = bundle.root_ids().next().unwrap();
        let trust = TrustBundles::new(Arc::new(bundle.clone()), Arc::default());
        let path = Path { trust_domain: bundle.trust_domain(), root: &root };
        let judged = judge.plain_mtls(trust.view(), path, declared, IN);
        assert_eq!(judged.map_err(|why| why.word()), expected);
    }
}

/// Asked of a peer of our own domain.
fn still(judge: &Judge, standing: &Standing) -> Result<(), NotLogged> {
    let own = bundle(None);
    let root = own.root_ids().next().unwrap();
    let trust = TrustBundles::new(Arc::new(own), Arc::default());
    let path = Path { trust_domain: trust.own().trust_domain(), root: &root };
    judge.still(trust.view(), path, standing)
}

#[test]
fn a_running_use_without_a_log_ends_when_the_operators_word_is_taken_back() {
    let own = Arc::new(bundle(None));
    let roots = bundle(None).roots().cloned().collect();
    let domain = TrustDomain::parse("b.example").unwrap();
    let bundle = Arc::new(TrustBundle::new(domain.clone(), 1, roots).unwrap());
    let root = bundle.root_ids().next().unwrap();
    let path = Path { trust_domain: &domain, root: &root };
    let judge = judge();
    for (unlogged, expected) in [(true, Ok(())), (false, Err("foreign_unlogged"))] {
        let foreign = ForeignBundle { bundle: Arc::clone(&bundle), unlogged };
        let foreign = ForeignBundles::new(1, vec![foreign]).unwrap();
        let trust = TrustBundles::new(own.clone(), Arc::new(foreign));
        let said = judge.still(trust.view(), path, &Standing::NoLog);
        assert_eq!(said.map_err(|why| why.word()), expected);
    }
    // A domain that is gone has another word, which others say.
    let trust = TrustBundles::new(own, Arc::default());
    assert_eq!(judge.still(trust.view(), path, &Standing::NoLog), Ok(()));
}

#[test]
fn a_use_that_was_judged_without_a_log_ends_when_one_is_stated() {
    let stated = bundle(None).stating(&log("stated.example"));
    let judge = judge();
    for (bundle, expected) in [(bundle(None), Ok(())), (stated, Err("not_logged"))] {
        let root = bundle.root_ids().next().unwrap();
        let trust = TrustBundles::new(Arc::new(bundle), Arc::default());
        let path = Path { trust_domain: trust.own().trust_domain(), root: &root };
        for standing in [Standing::NoLog, Standing::Exempt] {
            let said = judge.still(trust.view(), path, &standing).map_err(|why| why.word());
            let expected = if standing == Standing::NoLog { expected } else { Ok(()) };
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn a_distrusted_log_takes_down_only_what_stands_on_it() {
    let judge = judge();
    let (bad, good, roots) = (log("bad"), log("good"), log("roots"));
    let stands_on = |log: &LogKey| Standing::Logged([log.clone(), roots.clone()].into());
    let fork = |log| Fork { log, evidence: "evidence".to_owned() };
    judge.distrust(&fork(Suspect::Log(bad.clone())));
    judge.distrust(&fork(Suspect::Log(bad.clone())));
    assert_eq!(judge.forked().len(), 1);
    assert_eq!(still(&judge, &stands_on(&bad)).unwrap_err().word(), "log_forked");
    for standing in [stands_on(&good), Standing::NoLog, Standing::Exempt] {
        assert_eq!(still(&judge, &standing), Ok(()));
    }
    judge.distrust(&fork(Suspect::Log(roots.clone())));
    assert_eq!(still(&judge, &stands_on(&good)).unwrap_err().word(), "log_forked");
    // Where only the key's id is left of the evidence, it takes down what has that id.
    let judge = self::judge();
    judge.distrust(&fork(Suspect::KeyId(bad.as_note_key().id())));
    assert_eq!(still(&judge, &stands_on(&bad)).unwrap_err().word(), "log_forked");
    assert_eq!(still(&judge, &stands_on(&good)), Ok(()));
}

#[test]
fn every_word_is_in_the_closed_set() {
    let words = NotLogged::WORDS;
    for why in [
        NotLogged::Chain { seen: 3 },
        NotLogged::Undeclared,
        NotLogged::Forked { origin: String::new(), evidence: String::new() },
        NotLogged::Refused(myelin_identity::log::LogRefusal::NotLogged),
        NotLogged::Refused(myelin_identity::log::LogRefusal::UnknownLog { whose: "root" }),
    ] {
        assert!(words.contains(&why.word()), "{why}");
        assert!(!why.to_string().contains('\n'));
    }
}
