//! What the judge remembers, forgets and refuses, with certificates made on the spot. What is a good
//! proof and what is not has its tables where proofs are read, in `myelin_identity::log`.
//!
//! Never: a real log; the end-to-end suite has one.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::{ForeignBundle, ForeignBundles, TrustBundle, TrustBundles};
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

fn judge() -> std::sync::Arc<Judge> {
    Judge::new(Witnesses::default(), std::sync::Arc::new(Metrics::new())).0
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
            let judged = judge.peer(&bundle, &root, &chain(), &[], IN);
            assert_eq!(judged.map_err(|why| why.word()), expected);
        }
    }
}

#[test]
fn a_foreign_root_without_a_log_needs_the_operator_s_word() {
    let own = std::sync::Arc::new(bundle(None));
    let theirs = |log: Option<&LogKey>, unlogged| {
        let roots = bundle(log).roots().cloned().collect();
        let domain = TrustDomain::parse("b.example").unwrap();
        let bundle = std::sync::Arc::new(TrustBundle::new(domain, 1, roots).unwrap());
        let foreign = ForeignBundles::new(1, vec![ForeignBundle { bundle, unlogged }]).unwrap();
        TrustBundles::new(own.clone(), std::sync::Arc::new(foreign))
    };
    let log = log("l");
    for (names, unlogged, expected) in [
        (None, false, "foreign_unlogged"),
        (None, true, "accepted"),
        (Some(&log), false, "accepted"),
        (Some(&log), true, "accepted"),
    ] {
        let trust = theirs(names, unlogged);
        let foreign = &trust.foreign().bundles()[0].bundle;
        let root = foreign.root_ids().next().unwrap();
        let found = bundle_of(trust.view(), foreign.trust_domain(), &root);
        assert_eq!(found.map_or_else(|why| why.word(), |_| "accepted"), expected);
        // Ours needs nobody's word, and a domain that is gone has no bundle.
        let root = own.root_ids().next().unwrap();
        assert!(bundle_of(trust.view(), own.trust_domain(), &root).is_ok());
        let gone = TrustDomain::parse("c.example").unwrap();
        assert!(bundle_of(trust.view(), &gone, &root).is_err());
    }
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
    let why = judge().peer(&bundle, &root, &chain(), &[], IN).unwrap_err();
    assert_eq!(why.word(), "not_logged");
}

#[test]
fn a_chain_of_another_length_is_refused_before_its_proof_is_read() {
    let bundle = bundle(Some(&log("l")));
    let root = bundle.root_ids().next().unwrap();
    let judge = judge();
    for length in [0, 1, 3] {
        let chain = vec![vec![9].into(); length];
        let why = judge.peer(&bundle, &root, &chain, &[1, 2, 3], IN).unwrap_err();
        assert_eq!(why, NotLogged::Chain { seen: length });
    }
}

#[test]
fn a_root_that_the_bundle_does_not_hold_satisfies_nobody() {
    let (ours, other) = (bundle(None), bundle(None));
    let root = other.root_ids().next().unwrap();
    let why = judge().peer(&ours, &root, &chain(), &[], IN).unwrap_err();
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
        let judged = judge.plain_mtls(bundle, &root, declared, IN);
        assert_eq!(judged.map_err(|why| why.word()), expected);
    }
}

#[test]
fn a_distrusted_log_takes_down_only_what_stands_on_it() {
    let judge = judge();
    let (bad, good, roots) = (log("bad"), log("good"), log("roots"));
    let stands_on = |log: &LogKey| Standing::Logged([log.clone(), roots.clone()].into());
    judge.distrust(&bad, "evidence");
    judge.distrust(&bad, "evidence");
    assert_eq!(judge.forked().len(), 1);
    assert_eq!(judge.still(&stands_on(&bad)).unwrap_err().word(), "log_forked");
    for standing in [stands_on(&good), Standing::NoLog, Standing::Exempt] {
        assert_eq!(judge.still(&standing), Ok(()));
    }
    judge.distrust(&roots, "evidence");
    assert_eq!(judge.still(&stands_on(&good)).unwrap_err().word(), "log_forked");
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
