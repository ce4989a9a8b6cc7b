//! Tables of policy's answers.
//!
//! Never: a socket or a clock.

// SPDX-License-Identifier: Apache-2.0

use super::*;

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
    }
}

fn policy(allow: Vec<Rule>, deny: Vec<Rule>) -> Policy {
    let trust_domain = TrustDomain::parse("td.example").unwrap();
    Policy::new(Config { allow, deny, ..Config::strict(trust_domain) })
}

fn verdict(policy: &Policy, peer: &str, port: u16) -> Result<u16, String> {
    match policy.authorize(&id(peer), port) {
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
