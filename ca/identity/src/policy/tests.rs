//! The messages of both sides: what they become, and what is refused.
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use prost::Message as _;

use super::*;
use crate::id::SpiffeId;

fn rule(name: &str) -> RuleView {
    let id =
        |account| SpiffeId::parse(&format!("spiffe://td.example/ns/shop/sa/{account}")).unwrap();
    RuleView {
        name: name.to_owned(),
        ports: [8080, 9090].into(),
        ids: [id("web"), id("cart")].into(),
        namespaces: ["shop".to_owned()].into(),
        cidrs: ["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()].into(),
    }
}

fn view() -> PolicyView {
    let until = Mode::Permissive { until: 1_800_000_000 };
    let port = PortView { mode: Some(Mode::Strict), server_first: true, workload_tls: false };
    PolicyView {
        mode: Some(until),
        ports: [(8080, port), (25, PortView::default())].into(),
        allow: [rule("shop/web"), rule("shop/cart")].into(),
        deny: [RuleView { ports: [].into(), ..rule("shop/nobody") }].into(),
        audit: [RuleView { ids: [].into(), cidrs: [].into(), ..rule("shop/look") }].into(),
    }
}

fn heard(wire: proto::PolicyAnswer) -> Result<PolicyAnswer, PolicyError> {
    // As it comes from the wire.
    PolicyAnswer::try_from(proto::PolicyAnswer::decode(&*wire.encode_to_vec()).unwrap())
}

/// An answer that carries this, under the version that belongs to it.
fn carrying(wire: &proto::Policy) -> proto::PolicyAnswer {
    let policy = Bytes::from(wire.encode_to_vec());
    proto::PolicyAnswer { version: PolicyVersion::of(&policy).to_vec(), policy }
}

#[test]
fn a_policy_arrives_as_it_was_and_only_once() {
    let encoded = EncodedPolicy::new(&view()).unwrap();
    let version = encoded.version();
    assert_eq!(heard(encoded.answer(None)), Ok(PolicyAnswer::Policy(version, view())));
    assert_eq!(heard(encoded.answer(Some(version))), Ok(PolicyAnswer::Unchanged(version)));
    let mut changed = view();
    changed.allow.pop_last();
    let changed = EncodedPolicy::new(&changed).unwrap();
    assert_ne!(changed.version(), version);
    let news = heard(changed.answer(Some(version)));
    assert!(matches!(news, Ok(PolicyAnswer::Policy(..))), "{news:?}");
}

#[test]
fn a_policy_that_says_nothing_is_not_taken_for_no_news() {
    let nothing = EncodedPolicy::new(&PolicyView::default()).unwrap();
    let held = EncodedPolicy::new(&view()).unwrap().version();
    let version = nothing.version();
    assert_ne!(version, held);
    for known in [None, Some(held), Some(version)] {
        let said = heard(nothing.answer(known));
        assert_eq!(said, Ok(PolicyAnswer::Policy(version, PolicyView::default())), "{known:?}");
    }
}

#[test]
fn a_policy_that_says_more_than_is_known_here_is_refused() {
    let rule = proto::Rule { name: "shop/a".into(), ports: vec![80], ..proto::Rule::default() };
    let wire = proto::Policy { allow: vec![rule], ..proto::Policy::default() };
    assert!(heard(carrying(&wire)).is_ok());
    // A field of tomorrow: in the policy, and within its rule.
    let mut encoded = wire.encode_to_vec();
    let of_rule = encoded.len();
    encoded.extend([0x78, 1]);
    let mut within = wire.encode_to_vec();
    within[1] += 2;
    within.extend([0x78, 1]);
    assert_eq!(within.len(), of_rule + 2);
    for encoded in [encoded, within] {
        let policy = Bytes::from(encoded);
        let version = PolicyVersion::of(&policy).to_vec();
        let said = heard(proto::PolicyAnswer { version, policy });
        assert_eq!(said, Err(PolicyError::Unknown));
    }
}

#[test]
fn a_question_arrives_as_it_was() {
    for known in [None, Some(EncodedPolicy::new(&view()).unwrap().version())] {
        let question = PolicyQuestion { known };
        assert_eq!(PolicyQuestion::try_from(proto::PolicyQuestion::from(question)), Ok(question));
    }
    assert!(PolicyQuestion::try_from(proto::PolicyQuestion { known: vec![0; 15] }).is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = proto::Policy::decode(view().encode()).unwrap();
    assert_eq!(heard(carrying(&good)).map(|_| ()), Ok(()));
    let mode = |permissive, until| Some(proto::Mode { permissive, until });
    let policy = |change: &dyn Fn(&mut proto::Policy)| {
        let mut wire = good.clone();
        change(&mut wire);
        wire
    };
    let cidr = |address: &[u8], prefix| proto::Cidr { address: address.to_vec(), prefix };
    let mapped: Vec<u8> = "::ffff:10.0.0.0".parse::<std::net::Ipv6Addr>().unwrap().octets().into();
    let wrong: Vec<(&str, proto::Policy)> = vec![
        ("strict until", policy(&|it| it.mode = mode(false, 1))),
        ("permissive for ever", policy(&|it| it.mode = mode(true, 0))),
        ("permissive until the year 10000", policy(&|it| it.mode = mode(true, 253_402_300_800))),
        ("a port's mode", policy(&|it| it.ports[0].mode = mode(false, 9))),
        ("port 0", policy(&|it| it.ports[0].port = 0)),
        ("port 65536", policy(&|it| it.ports[0].port = 65_536)),
        ("a port twice", policy(&|it| it.ports[1] = it.ports[0])),
        ("a rule's port", policy(&|it| it.deny[0].ports = vec![65_536])),
        ("no name", policy(&|it| it.allow[0].name = String::new())),
        ("a name of two lines", policy(&|it| it.allow[0].name = "a\nb".to_owned())),
        ("a built-in name", policy(&|it| it.allow[0].name = "(reserved identity)".to_owned())),
        ("a long name", policy(&|it| it.allow[0].name = "n".repeat(MAX_RULE_NAME_BYTES + 1))),
        ("no ID", policy(&|it| it.audit[0].spiffe_ids = vec!["web".to_owned()])),
        (
            "the CA",
            policy(&|it| it.allow[0].spiffe_ids = vec!["spiffe://td.example/myelin/ca".to_owned()]),
        ),
        ("no namespace", policy(&|it| it.allow[0].namespaces = vec!["sh*p".to_owned()])),
        ("an empty namespace", policy(&|it| it.allow[0].namespaces = vec![String::new()])),
        ("a long namespace", policy(&|it| it.allow[0].namespaces = vec!["n".repeat(64)])),
        ("three bytes", policy(&|it| it.allow[0].cidrs = vec![cidr(&[10, 0, 0], 8)])),
        ("a long prefix", policy(&|it| it.allow[0].cidrs = vec![cidr(&[10, 0, 0, 0], 33)])),
        ("a huge prefix", policy(&|it| it.allow[0].cidrs = vec![cidr(&[10, 0, 0, 0], 264)])),
        ("host bits", policy(&|it| it.deny[0].cidrs = vec![cidr(&[10, 0, 0, 1], 8)])),
        ("IPv4 in IPv6", policy(&|it| it.deny[0].cidrs = vec![cidr(&mapped, 104)])),
    ];
    for (what, wire) in wrong {
        assert!(heard(carrying(&wire)).is_err(), "{what}");
    }
    let fitting = carrying(&good);
    for (what, wire) in [
        ("another version", proto::PolicyAnswer { version: vec![0; 16], ..fitting.clone() }),
        ("no version", proto::PolicyAnswer { version: Vec::new(), ..fitting.clone() }),
        ("a short version", proto::PolicyAnswer { version: vec![0; 15], ..fitting }),
        ("nothing at all", proto::PolicyAnswer::default()),
    ] {
        assert!(heard(wire).is_err(), "{what}");
    }
}

#[test]
fn every_list_has_an_end() {
    let good = proto::Policy::decode(view().encode()).unwrap();
    let (rule, port) = (good.allow[0].clone(), good.ports[0]);
    let with_rule = |change: &dyn Fn(&mut proto::Rule)| {
        let mut rule = rule.clone();
        change(&mut rule);
        proto::Policy { allow: vec![rule], ..good.clone() }
    };
    let ids = |count| (0..count).map(|at| format!("spiffe://td.example/ns/a/sa/{at}")).collect();
    let names = |count: usize| (0..count).map(|at| at.to_string()).collect();
    let cidr = proto::Cidr { address: vec![10, 0, 0, 0], prefix: 8 };
    let long = |count| proto::Policy { audit: vec![rule.clone(); count], ..good.clone() };
    for (fits, too_many) in [
        (with_rule(&|it| it.spiffe_ids = ids(1024)), with_rule(&|it| it.spiffe_ids = ids(1025))),
        (
            with_rule(&|it| it.namespaces = names(1024)),
            with_rule(&|it| it.namespaces = names(1025)),
        ),
        (
            with_rule(&|it| it.cidrs = vec![cidr.clone(); 256]),
            with_rule(&|it| it.cidrs = vec![cidr.clone(); 257]),
        ),
        (with_rule(&|it| it.ports = vec![1; 256]), with_rule(&|it| it.ports = vec![1; 257])),
        (long(256), long(257)),
        (good.clone(), proto::Policy { ports: vec![port; 257], ..good.clone() }),
    ] {
        assert_eq!(heard(carrying(&fits)).map(|_| ()), Ok(()));
        let refused = heard(carrying(&too_many));
        assert!(matches!(refused, Err(PolicyError::TooMany { .. })), "{refused:?}");
    }
    let mut large = view();
    let id =
        |at| SpiffeId::parse(&format!("spiffe://td.example/{}/{at}", "a".repeat(300))).unwrap();
    large.allow.insert(RuleView { ids: (0..1_000).map(id).collect(), ..self::rule("shop/many") });
    let refused = EncodedPolicy::new(&large);
    assert!(matches!(refused, Err(PolicyError::TooLarge { .. })), "{refused:?}");
}
