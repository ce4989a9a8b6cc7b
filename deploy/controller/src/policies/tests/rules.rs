//! AuthorizationPolicies: what each comes to, and what is left of one that cannot be read.
//!
//! Never: a policy that opens more for being wrong.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::*;
use crate::policies::authorization::{Author, Authorization, Effect};
use crate::policies::compile::CLOSED;

fn read(spec: &Value) -> Authorization {
    let domain = domain();
    Authorization::read(spec, &Author { trust_domain: &domain, namespace: "shop", name: "shop/it" })
}

fn effects(spec: &Value) -> Vec<String> {
    let show = |effect: &Effect| match effect {
        Effect::Allow(rule) => format!("allow {}", line(rule)),
        Effect::Deny(rule) => format!("deny {}", line(rule)),
        Effect::Audit(rule) => format!("audit {}", line(rule)),
        Effect::Close(ports) => format!("close {ports:?}"),
    };
    read(spec).effects.iter().map(show).collect()
}

fn rule(action: &str, from: Value) -> Value {
    json!({ "action": action, "rules": [{ "from": from, "to": [{ "ports": [80, 443] }] }] })
}

#[test]
fn each_source_of_a_rule_is_a_rule_of_the_sidecars() {
    let from = json!([
        { "ids": ["spiffe://other.example/x"], "serviceAccounts": ["cart", "ops/probe"] },
        { "namespaces": ["ops"], "cidrs": ["10.2.0.0/16", "fd00::/8"] },
    ]);
    let expected = [
        "shop/it 80,443 < other.example/x,td.example/ns/ops/sa/probe,td.example/ns/shop/sa/cart @ ",
        "shop/it 80,443 < ns ops @ 10.2.0.0/16,fd00::/8",
    ];
    for (action, word) in [("Allow", "allow"), ("Deny", "deny"), ("Audit", "audit")] {
        let expected = expected.map(|line| format!("{word} {line}"));
        assert_eq!(effects(&rule(action, from.clone())), expected);
    }
    // Without `to` it is about all ports.
    let all = json!({ "action": "Deny", "rules": [{ "from": [{ "namespaces": ["a"] }] }] });
    assert_eq!(effects(&all), ["deny shop/it  < ns a @ "]);
    assert_eq!(read(&all).wrong, None);
}

#[test]
fn an_allow_without_rules_allows_nobody() {
    let spec = json!({ "action": "Allow" });
    assert_eq!(effects(&spec), ["allow shop/it  <  @ "]);
    assert_eq!(read(&spec).wrong, None);
}

/// Whom a rule is about, wrong in one thing; and how the error begins.
fn wrong_sources() -> Vec<(&'static str, Value)> {
    let names = |count: usize| (0..count).map(|at| json!(format!("a{at}"))).collect::<Vec<_>>();
    vec![
        ("spec.rules[0].from[0].ids[0]", json!([{ "ids": ["web"] }])),
        ("spec.rules[0].from[0].ids[1]", json!([{ "ids": ["spiffe://td.example/a", 7] }])),
        ("spec.rules[0].from[0]", json!([{ "ids": ["spiffe://td.example/myelin/ca"] }])),
        ("spec.rules[0].from[0].serviceAccounts[0]", json!([{ "serviceAccounts": ["a/b/c"] }])),
        ("spec.rules[0].from[0].serviceAccounts[0]", json!([{ "serviceAccounts": ["/a"] }])),
        ("spec.rules[0].from[0]", json!([{ "namespaces": ["sh*p"] }])),
        ("spec.rules[0].from[0].cidrs[0]", json!([{ "cidrs": ["10.0.0.1/8"] }])),
        ("spec.rules[0].from[0].cidrs[0]", json!([{ "cidrs": ["10.0.0.0/33"] }])),
        ("spec.rules[0].from[0]", json!([{ "cidrs": ["::ffff:10.0.0.0/104"] }])),
        ("spec.rules[0].from[0].ids", json!([{ "ids": "spiffe://td.example/a" }])),
        ("spec.rules[0].from[0].ids", json!([{ "ids": [] }])),
        ("spec.rules[0].from[0].namespaces", json!([{ "namespaces": names(1_025) }])),
        (
            "spec.rules[0].from[0]",
            json!([{ "ids": ["spiffe://a/b"], "serviceAccounts": names(1_024) }]),
        ),
        ("spec.rules[0].from[0].ids", json!([{ "ids": names(1_025), "namespaces": ["a"] }])),
        ("spec.rules[0].from[0]", json!([{}])),
        ("spec.rules[0].from[0]", json!([{ "namespaces": ["a"], "notIds": ["b"] }])),
        ("spec.rules[0].from[0]", json!(["a"])),
        ("spec.rules[0].from", json!([])),
        ("spec.rules[0].from", Value::Null),
    ]
}

#[test]
fn a_rule_that_cannot_be_read_keeps_its_ports_closed_and_says_where() {
    for (place, from) in wrong_sources() {
        let allow = rule("Allow", from.clone());
        assert_eq!(effects(&allow), ["allow shop/it 80,443 <  @ "], "{from}");
        let deny = rule("Deny", from.clone());
        assert_eq!(effects(&deny), ["close {80, 443}"], "{from}");
        assert!(effects(&rule("Audit", from.clone())).is_empty(), "{from}");
        let said = read(&deny).wrong.unwrap().0;
        assert!(said.starts_with(&format!("{place}: ")), "{said}, expected {place}");
    }
}

#[test]
fn ports_that_cannot_be_read_are_all_ports() {
    let from = json!([{ "namespaces": ["a"] }]);
    let to = [
        json!([]),
        json!([{}]),
        json!([{ "ports": [0] }]),
        json!([{ "ports": [80, 65_536] }]),
        json!([{ "ports": ["80"] }]),
        json!([{ "ports": [80] }, { "ports": [] }]),
        json!([{ "ports": [80], "hosts": ["a"] }]),
        json!([{ "ports": (1..=200).collect::<Vec<u16>>() }, { "ports": (201..=257).collect::<Vec<u16>>() }]),
    ];
    for to in to {
        let spec = |action| json!({ "action": action, "rules": [{ "from": from, "to": to }] });
        assert_eq!(effects(&spec("Allow")), ["allow shop/it  <  @ "], "{to}");
        assert_eq!(effects(&spec("Deny")), ["close {}"], "{to}");
        assert!(read(&spec("Deny")).wrong.unwrap().0.starts_with("spec.rules[0].to"), "{to}");
    }
}

#[test]
fn one_rule_amiss_costs_only_itself() {
    let good = json!({ "from": [{ "namespaces": ["ops"] }], "to": [{ "ports": [9000] }] });
    let bad = json!({ "from": [{ "ids": ["no"] }], "to": [{ "ports": [80] }] });
    let spec = |action| json!({ "action": action, "rules": [bad, good] });
    assert_eq!(
        effects(&spec("Allow")),
        ["allow shop/it 80 <  @ ", "allow shop/it 9000 < ns ops @ "]
    );
    assert_eq!(effects(&spec("Deny")), ["close {80}", "deny shop/it 9000 < ns ops @ "]);
}

#[test]
fn what_nobody_knows_closes() {
    let from = json!([{ "namespaces": ["ops"] }]);
    // A field of a newer schema may narrow what was allowed.
    let mut newer = rule("Allow", from.clone());
    newer["when"] = json!("weekends");
    assert_eq!(effects(&newer), ["allow shop/it 80,443 <  @ "]);
    let mut newer = rule("Deny", from.clone());
    newer["unless"] = json!("weekends");
    assert_eq!(effects(&newer), ["close {80, 443}"]);
    for action in [json!("allow"), json!("Redirect"), json!(1), Value::Null] {
        let spec = json!({ "action": action, "rules": rule("Allow", from.clone())["rules"] });
        assert_eq!(effects(&spec), ["close {80, 443}"], "{action}");
        assert_eq!(effects(&json!({ "action": action })), ["close {}"], "{action}");
    }
    for spec in [Value::Null, json!("Allow"), json!([]), json!({ "action": "Deny" })] {
        assert_eq!(effects(&spec), ["close {}"], "{spec}");
    }
    assert_eq!(effects(&json!({ "action": "Deny", "rules": [] })), ["close {}"]);
}

#[test]
fn an_allow_whose_targets_cannot_be_read_opens_nothing_to_others() {
    for targets in [
        json!([]),
        json!([{ "kind": "Service", "name": "" }]),
        json!([{ "kind": "Deployment", "name": "web" }]),
        json!([{ "group": "apps", "kind": "Service", "name": "web" }]),
        json!([{ "kind": "Service", "name": "web", "namespace": "other" }]),
    ] {
        let with = |action: &str| {
            let mut spec = rule(action, json!([{ "namespaces": ["ops"] }]));
            spec["targetRefs"] = targets.clone();
            spec
        };
        assert_eq!(effects(&with("Allow")), ["allow shop/it 80,443 <  @ "], "{targets}");
        assert_eq!(effects(&with("Deny")), ["deny shop/it 80,443 < ns ops @ "], "{targets}");
        // It may mean any workload of its namespace, so it means all of them.
        let catalog = catalog(&[], &[("shop/it", with("Deny"))]);
        let there = view(&catalog, &caller("shop/db", "10.1.0.2"));
        assert_eq!(lines(&there.deny), ["shop/it 80,443 < ns ops @ "]);
        assert!(view(&catalog, &caller("other/web", "10.1.0.9")).deny.is_empty());
        // And in the mesh's own namespace any workload of the mesh.
        for (action, allowed, denied) in [
            ("Deny", vec![], vec!["myelin-system/it 80,443 < ns ops @ "]),
            ("Allow", vec!["myelin-system/it 80,443 <  @ "], vec![]),
        ] {
            let catalog = super::catalog(&[], &[("myelin-system/it", with(action))]);
            for who in ["shop/db", "myelin-system/web"] {
                let there = view(&catalog, &caller(who, "10.1.0.2"));
                assert_eq!(lines(&there.allow), allowed, "{who}");
                assert_eq!(lines(&there.deny), denied, "{who}");
            }
        }
    }
}

#[test]
fn a_closed_port_lets_in_nobody_whatever_else_is_allowed() {
    let broken = rule("Deny", json!([{ "ids": ["no"] }]));
    let partner = json!({ "ids": ["spiffe://other.example/x", "spiffe://td.example/y"] });
    let everywhere = json!({ "action": "Allow", "rules": [{ "from": [partner] }] });
    let catalog = catalog(
        &[],
        &[
            ("shop/broken", broken),
            ("shop/some", allow(&[80, 8080], partner.clone())),
            ("shop/only", allow(&[443], partner)),
            ("shop/everywhere", everywhere),
        ],
    );
    let view = view(&catalog, &caller("shop/web", "10.1.0.1"));
    let expected = [
        "shop/everywhere  < other.example/x,td.example/y @ ",
        "shop/some 8080 < other.example/x,td.example/y @ ",
    ];
    assert_eq!(lines(&view.allow), expected);
    // Ranges alone are about anybody, of whatever trust domain.
    assert_eq!(lines(&view.deny), [format!("{CLOSED} 80,443 <  @ 0.0.0.0/0,::/0")]);
}

#[test]
fn a_deny_that_closes_everything_leaves_no_allow() {
    let partner = json!({ "ids": ["spiffe://other.example/x"] });
    let all = [("shop/broken", json!({})), ("shop/some", allow(&[80], partner))];
    let view = view(&catalog(&[], &all), &caller("shop/web", "10.1.0.1"));
    assert_eq!(lines(&view.allow), [format!("{CLOSED}  <  @ ")]);
    assert_eq!(lines(&view.deny), [format!("{CLOSED}  <  @ 0.0.0.0/0,::/0")]);
}

#[test]
fn beyond_what_a_sidecar_takes_everything_is_closed() {
    let caller = caller("shop/web", "10.1.0.1");
    let many = |action: &str, count: usize| {
        let one = |at: usize| json!({ "from": [{ "namespaces": [format!("n{at:03}")] }], "to": [{ "ports": [1 + at % 9] }] });
        json!({ "action": action, "rules": (0..count).map(one).collect::<Vec<_>>() })
    };
    let compiled = |all: &[(&str, Value)]| {
        let catalog = catalog(&[], all);
        catalog.compile(&catalog.subject(&caller))
    };
    let fits = compiled(&[("shop/a", many("Allow", 256)), ("shop/b", many("Deny", 256))]);
    assert!(!fits.is_over);
    assert_eq!((told(&fits.encoded).allow.len(), told(&fits.encoded).deny.len()), (256, 256));
    let over = compiled(&[
        ("shop/a", many("Allow", 256)),
        ("shop/b", allow(&[7000], json!({ "namespaces": ["x"] }))),
    ]);
    assert!(over.is_over);
    let view = told(&over.encoded);
    assert_eq!(view.allow.len(), 256);
    let nobody = view.allow.iter().find(|rule| rule.name == CLOSED).unwrap();
    assert!(nobody.ports.contains(&7000) && nobody.namespaces.is_empty(), "{nobody:?}");
    let deny_one = rule("Deny", json!([{ "namespaces": ["x"] }]));
    let over = compiled(&[("shop/a", many("Deny", 256)), ("shop/b", deny_one)]);
    let view = told(&over.encoded);
    assert!(over.is_over && view.deny.iter().any(|rule| !rule.cidrs.is_empty()));
    assert!(compiled(&[("shop/a", many("Audit", 256)), ("shop/b", many("Audit", 1))]).is_over);
}
