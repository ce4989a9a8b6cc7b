//! Tables of policy's answers.
//!
//! Never: a socket or a clock.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::policy::{PolicyView, PortView, RuleView};

use super::*;
use crate::addr::CidrSet;

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn rule(name: &str, ports: &[u16], ids: &[&str], namespaces: &[&str]) -> Rule {
    Rule {
        name: name.into(),
        ports: if ports.is_empty() {
            Ports::All
        } else {
            Ports::Only(ports.iter().copied().collect())
        },
        ids: ids.iter().map(|text| id(text)).collect(),
        namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
        author: Author::File,
        cidrs: CidrSet::default(),
    }
}

fn from(rule: Rule, cidrs: &[&str]) -> Rule {
    let cidrs = cidrs.iter().map(|text| text.parse().unwrap()).collect();
    Rule { cidrs: CidrSet::new(cidrs), ..rule }
}

fn policy(allow: Vec<Rule>, deny: Vec<Rule>) -> Policy {
    let trust_domain = TrustDomain::parse("td.example").unwrap();
    Policy::new(Config { allow, deny, ..Config::strict(trust_domain) })
}

fn verdict(policy: &Policy, peer: &str, port: u16) -> Result<u16, String> {
    verdict_from(policy, peer, "10.1.0.1", port)
}

fn verdict_from(policy: &Policy, peer: &str, from: &str, port: u16) -> Result<u16, String> {
    match policy.authorize(&id(peer), from.parse().unwrap(), port) {
        Ok(authorized) => Ok(authorized.port()),
        Err(denied) => Err(denied.rule.to_string()),
    }
}

#[test]
fn without_rules_the_own_trust_domain_enters_and_nobody_else() {
    let policy = policy(vec![], vec![]);
    for (peer, expected) in [
        ("spiffe://td.example/ns/shop/sa/web", Ok(80)),
        ("spiffe://td.example/anything", Ok(80)),
        ("spiffe://td.other/ns/shop/sa/web", Err(FOREIGN.to_owned())),
        ("spiffe://td.example.org/ns/shop/sa/web", Err(FOREIGN.to_owned())),
        ("spiffe://td.example/myelin/ca", Err(RESERVED.to_owned())),
    ] {
        assert_eq!(verdict(&policy, peer, 80), expected, "{peer}");
    }
}

#[test]
fn names_are_compared_whole_never_as_patterns() {
    let policy = policy(
        vec![rule(
            "web",
            &[80],
            &["spiffe://td.example/ns/shop/sa/a.b", "spiffe://td.example/ns/shop/sa/web"],
            &["ops.eu"],
        )],
        vec![],
    );
    for (peer, allowed) in [
        ("spiffe://td.example/ns/shop/sa/a.b", true),
        ("spiffe://td.example/ns/shop/sa/aXb", false),
        ("spiffe://td.example/ns/shop/sa/web", true),
        ("spiffe://td.example/ns/shop/sa/web2", false),
        ("spiffe://td.example/ns/shop/sa/we", false),
        ("spiffe://td.example/ns/shop/sa/web/x", false),
        ("spiffe://td.example/x/ns/shop/sa/web", false),
        ("spiffe://td.example/ns/Shop/sa/web", false),
        ("spiffe://td.example/ns/ops.eu/sa/any", true),
        ("spiffe://td.example/ns/opsXeu/sa/any", false),
        ("spiffe://td.example/ns/ops.eu2/sa/any", false),
        ("spiffe://td.example/ns/ops.eu", false),
        ("spiffe://td.example/ns/ops.eu/sa/any/more", false),
        ("spiffe://td.other/ns/ops.eu/sa/any", false),
        ("spiffe://td.other/ns/shop/sa/web", false),
    ] {
        assert_eq!(verdict(&policy, peer, 80).is_ok(), allowed, "{peer}");
    }
}

#[test]
fn a_port_that_a_deny_rule_names_is_closed_to_whoever_is_not_allowed() {
    let banned = "spiffe://td.example/ns/shop/sa/banned";
    let policy = policy(vec![], vec![rule("ban", &[80], &[banned], &[])]);
    let other = "spiffe://td.example/ns/shop/sa/ok";
    assert_eq!(verdict(&policy, other, 80), Err(NOT_ALLOWED.to_owned()));
    assert_eq!(verdict(&policy, other, 81), Ok(81));
}

#[test]
fn a_deny_rule_for_every_port_closes_none_to_the_others() {
    let banned = "spiffe://td.example/ns/shop/sa/banned";
    let policy = policy(vec![], vec![rule("ban", &[], &[banned], &[])]);
    assert_eq!(verdict(&policy, banned, 80), Err("ban".to_owned()));
    assert_eq!(verdict(&policy, "spiffe://td.example/ns/shop/sa/ok", 80), Ok(80));
}

#[test]
fn a_port_that_no_rule_names_stays_open_to_the_trust_domain() {
    let policy = policy(vec![rule("web", &[80], &[], &["shop"])], vec![]);
    let stranger = "spiffe://td.example/ns/other/sa/x";
    assert_eq!(verdict(&policy, stranger, 80), Err(NOT_ALLOWED.to_owned()));
    assert_eq!(verdict(&policy, stranger, 81), Ok(81));
}

#[test]
fn an_allow_rule_for_all_ports_closes_every_port() {
    let policy = policy(vec![rule("shop", &[], &[], &["shop"])], vec![]);
    for port in [1, 80, 65_535] {
        assert_eq!(verdict(&policy, "spiffe://td.example/ns/shop/sa/x", port), Ok(port));
        assert!(verdict(&policy, "spiffe://td.example/ns/other/sa/x", port).is_err());
    }
}

#[test]
fn a_deny_rule_wins_over_an_allow_rule() {
    let banned = "spiffe://td.example/ns/shop/sa/banned";
    let policy = policy(
        vec![rule("all-of-shop", &[], &[banned], &["shop"])],
        vec![rule("ban", &[80], &[banned], &[])],
    );
    assert_eq!(verdict(&policy, banned, 80), Err("ban".to_owned()));
    assert_eq!(verdict(&policy, banned, 81), Ok(81));
    assert_eq!(verdict(&policy, "spiffe://td.example/ns/shop/sa/ok", 80), Ok(80));
}

#[test]
fn an_empty_rule_allows_nobody() {
    let policy = policy(vec![rule("closed", &[80], &[], &[])], vec![]);
    assert!(verdict(&policy, "spiffe://td.example/ns/shop/sa/web", 80).is_err());
}

#[test]
fn a_foreign_or_reserved_identity_enters_only_by_exact_id() {
    let foreign = "spiffe://td.other/ns/shop/sa/web";
    let policy = policy(vec![rule("partner", &[80], &[foreign], &[])], vec![]);
    assert_eq!(verdict(&policy, foreign, 80), Ok(80));
    assert_eq!(verdict(&policy, foreign, 81), Err(FOREIGN.to_owned()));
}

#[test]
fn permissive_ends_at_its_second_and_strict_never_yields() {
    let mut config = Config::strict(TrustDomain::parse("td.example").unwrap());
    config.default = Mode::Permissive { until: 1_000 };
    config.ports.insert(
        25,
        PortConfig { server_first: true, ..PortConfig::new(Mode::Permissive { until: 2_000 }) },
    );
    config.ports.insert(
        443,
        PortConfig { workload_tls: true, ..PortConfig::new(Mode::Permissive { until: 2_000 }) },
    );
    config.ports.insert(80, PortConfig { server_first: true, ..PortConfig::new(Mode::Strict) });
    let policy = Policy::new(config);
    let permissive = |server_first, workload_tls| Demand::Permissive { server_first, workload_tls };
    for (port, now, expected) in [
        (9, 999, permissive(false, false)),
        (9, 1_000, Demand::Mtls),
        (25, 1_999, permissive(true, false)),
        (25, 2_000, Demand::Mtls),
        (443, 1_999, permissive(false, true)),
        (443, u64::MAX, Demand::Mtls),
        (80, 0, Demand::Mtls),
    ] {
        assert_eq!(policy.demand(port, now), expected, "port {port} at {now}");
    }
}

#[test]
fn plain_mtls_is_served_only_where_declared() {
    let mut config = Config::strict(TrustDomain::parse("td.example").unwrap());
    for (port, alpn) in [(8443, Some("h2")), (8444, None), (8445, Some("h2"))] {
        let plain = PlainMtls { alpn: alpn.map(|alpn| alpn.as_bytes().to_vec()) };
        config
            .ports
            .insert(port, PortConfig { plain_mtls: Some(plain), ..PortConfig::new(Mode::Strict) });
    }
    config.ports.insert(80, PortConfig::new(Mode::Strict));
    let policy = Policy::new(config);
    assert_eq!(policy.plain_mtls(8443).unwrap().alpn.as_deref(), Some(b"h2".as_slice()));
    assert_eq!(policy.plain_mtls(8444).unwrap().alpn, None);
    assert!(policy.plain_mtls(80).is_none());
    assert!(policy.plain_mtls(81).is_none());
    assert_eq!(policy.alpns().collect::<Vec<_>>(), [b"h2"]);
}

const SHOP: &str = "spiffe://td.example/ns/shop/sa/web";
const PARTNER: &str = "spiffe://td.other/ns/shop/sa/web";
const CA: &str = "spiffe://td.example/myelin/ca";

#[test]
fn a_rule_with_ranges_needs_the_peer_and_the_address() {
    let allow = from(rule("near", &[80], &[SHOP], &[]), &["10.1.0.0/16", "fd00:1::/32"]);
    let policy = policy(vec![allow], vec![]);
    for (peer, address, allowed) in [
        (SHOP, "10.1.255.255", true),
        (SHOP, "::ffff:10.1.0.1", true),
        (SHOP, "fd00:1:ffff::1", true),
        (SHOP, "10.2.0.0", false),
        (SHOP, "10.0.255.255", false),
        (SHOP, "fd00:2::1", false),
        ("spiffe://td.example/ns/shop/sa/db", "10.1.0.1", false),
        (PARTNER, "10.1.0.1", false),
    ] {
        assert_eq!(verdict_from(&policy, peer, address, 80).is_ok(), allowed, "{peer} {address}");
    }
    assert_eq!(verdict_from(&policy, SHOP, "10.9.0.1", 81), Ok(81), "a port that it does not name");
}

#[test]
fn ranges_alone_let_in_the_own_trust_domain_and_keep_out_anybody() {
    let near = || vec![from(rule("near", &[], &[], &[]), &["10.1.0.0/16"])];
    let allows = policy(near(), vec![]);
    let denies = policy(vec![rule("partner", &[], &[PARTNER], &["shop"])], near());
    for (peer, address, allowed, denied) in [
        (SHOP, "10.1.0.1", Ok(80), Err("near".to_owned())),
        (SHOP, "10.2.0.1", Err(NOT_ALLOWED.to_owned()), Ok(80)),
        (PARTNER, "10.1.0.1", Err(NOT_ALLOWED.to_owned()), Err("near".to_owned())),
        (PARTNER, "10.2.0.1", Err(NOT_ALLOWED.to_owned()), Ok(80)),
        (CA, "10.1.0.1", Err(NOT_ALLOWED.to_owned()), Err("near".to_owned())),
    ] {
        assert_eq!(verdict_from(&allows, peer, address, 80), allowed, "{peer} {address}");
        assert_eq!(verdict_from(&denies, peer, address, 80), denied, "{peer} {address}");
    }
}

#[test]
fn an_audit_rule_changes_no_verdict_and_speaks_once_a_second() {
    let audit = vec![
        rule("everybody-of-shop", &[80], &[], &["shop"]),
        from(rule("near", &[], &[], &[]), &["10.1.0.0/16"]),
        rule("nobody", &[], &[], &[]),
    ];
    let trust_domain = TrustDomain::parse("td.example").unwrap();
    let audited = Policy::new(Config { audit, ..Config::strict(trust_domain) });
    let plain = policy(vec![], vec![]);
    for (peer, address, port, expected) in [
        (SHOP, "10.1.0.1", 80, vec!["everybody-of-shop", "near"]),
        (SHOP, "10.2.0.1", 80, vec!["everybody-of-shop"]),
        (SHOP, "10.1.0.1", 81, vec!["near"]),
        (PARTNER, "10.1.0.1", 80, vec!["near"]),
        (PARTNER, "10.2.0.1", 80, vec![]),
    ] {
        let caller = id(peer);
        let said = audited.audit(&caller, address.parse().unwrap(), port);
        let said: Vec<String> = said.map(|it| it.rule.name.to_string()).collect();
        assert_eq!(said, expected, "{peer} {address} {port}");
        let verdicts = [&audited, &plain].map(|it| verdict_from(it, peer, address, port));
        assert_eq!(verdicts[0], verdicts[1], "{peer} {address} {port}");
    }
    let shop = id(SHOP);
    let told = |now| {
        let uses = audited.audit(&shop, "10.2.0.1".parse().unwrap(), 80);
        uses.filter(|it| it.is_told(now)).count()
    };
    assert_eq!([told(7), told(7), told(8), told(8)], [1, 0, 1, 0]);
}

#[test]
fn before_a_controllers_first_word_nobody_enters_whatever_the_file_says() {
    let trust_domain = TrustDomain::parse("td.example").unwrap();
    let allow = vec![rule("all", &[], &[SHOP], &["shop"])];
    let mut config = Config { allow, ..Config::strict(trust_domain) };
    config.default = Mode::Permissive { until: u64::MAX };
    let pending = Policy::pending(config.clone());
    assert_eq!(pending.demand(80, 0), Demand::Pending);
    assert_eq!(verdict(&pending, SHOP, 80), Err(PENDING.to_owned()));
    let open = Policy::new(config);
    assert_eq!(verdict(&open, SHOP, 80), Ok(80));
}

fn said(name: &str, namespace: &str) -> RuleView {
    RuleView {
        name: name.to_owned(),
        ports: [80].into(),
        ids: [].into(),
        namespaces: [namespace.to_owned()].into(),
        cidrs: [].into(),
    }
}

#[test]
fn the_rules_of_file_and_controller_both_apply_and_deny_wins() {
    let trust_domain = TrustDomain::parse("td.example").unwrap();
    let file = Config {
        allow: vec![rule("of-file", &[80], &[], &["shop"])],
        deny: vec![rule("never", &[80], &[], &["evil"])],
        ..Config::strict(trust_domain)
    };
    let view = PolicyView {
        allow: [said("shop/ops", "ops"), said("shop/evil", "evil")].into(),
        deny: [said("shop/no-db", "db")].into(),
        audit: [said("shop/look", "ops")].into(),
        ..PolicyView::default()
    };
    let both = Policy::new(file.with(&view));
    let of = |namespace: &str| format!("spiffe://td.example/ns/{namespace}/sa/x");
    for (namespace, expected) in [
        ("shop", Ok(80)),
        ("ops", Ok(80)),
        ("evil", Err("never".to_owned())),
        ("db", Err("shop/no-db".to_owned())),
        ("else", Err(NOT_ALLOWED.to_owned())),
    ] {
        assert_eq!(verdict(&both, &of(namespace), 80), expected, "{namespace}");
    }
    let authors: Vec<Author> = both.config().allow.iter().map(|rule| rule.author).collect();
    assert_eq!(authors, [Author::File, Author::Controller, Author::Controller]);
    assert_eq!(both.audit(&id(&of("ops")), "10.1.0.1".parse().unwrap(), 80).count(), 1);
    // Without the controller's word the file's is as before.
    let alone = Policy::new(file.with(&PolicyView::default()));
    assert_eq!(verdict(&alone, &of("ops"), 80), Err(NOT_ALLOWED.to_owned()));
}

#[test]
fn the_controllers_modes_win_for_what_it_names() {
    let until = Mode::Permissive { until: 2_000 };
    let mut file = Config::strict(TrustDomain::parse("td.example").unwrap());
    file.default = until;
    let plain_mtls = Some(PlainMtls { alpn: None });
    file.ports.insert(25, PortConfig { plain_mtls, ..PortConfig::new(until) });
    file.ports.insert(26, PortConfig::new(until));
    // As a file writes it that says of a port only who speaks first.
    file.ports.insert(27, PortConfig { mode: None, server_first: true, ..PortConfig::new(until) });
    let strict = |mode| PortView { mode, server_first: false, workload_tls: false };
    let view = PolicyView {
        mode: Some(Mode::Strict),
        ports: [(25, strict(Some(Mode::Strict))), (28, strict(None))].into(),
        ..PolicyView::default()
    };
    let permissive = Demand::Permissive { server_first: false, workload_tls: false };
    let merged = Policy::new(file.with(&view));
    for (port, expected) in [
        (25, Demand::Mtls),
        (26, Demand::Mtls),
        (27, Demand::Mtls),
        (28, Demand::Mtls),
        (29, Demand::Mtls),
    ] {
        assert_eq!(merged.demand(port, 1_999), expected, "port {port}");
    }
    assert!(merged.plain_mtls(25).is_some(), "the file's alone to say");
    let file_alone = Policy::new(file.with(&PolicyView::default()));
    assert_eq!(file_alone.demand(29, 1_999), permissive);
}
