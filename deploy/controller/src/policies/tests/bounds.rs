//! More than a sidecar takes: what is left, and what is said of it.
//!
//! Never: a bound that opens, or that costs whoever keeps within it.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::*;
use crate::policies::authorization::{Author, Authorization, Effect};
use crate::policies::compile::{CLOSED, Compiled};

/// So many rules of 60 long names each: some 13 kB.
fn long(action: &str, rules: u16) -> Value {
    let rule = |at: u16| {
        let id = |it: u16| format!("spiffe://td.example/{at}/{it}/{}", "x".repeat(200));
        let ids: Vec<String> = (0..60).map(id).collect();
        json!({ "from": [{ "ids": ids }], "to": [{ "ports": [8000 + at] }] })
    };
    json!({ "action": action, "rules": (0..rules).map(rule).collect::<Vec<_>>() })
}

fn compiled(policies: &[(&str, Value)]) -> Compiled {
    let catalog = catalog(&[], policies);
    catalog.compile(&catalog.subject(&caller("shop/web", "10.1.0.1")))
}

#[test]
fn one_policy_is_read_as_far_as_a_sidecar_would_take_it() {
    let domain = domain();
    let author = Author { trust_domain: &domain, namespace: "shop", name: "shop/it" };
    for (action, left) in [("Allow", 32), ("Deny", 32), ("Audit", 19)] {
        let read = Authorization::read(&long(action, 32), &author);
        let said = read.wrong.expect(action).0;
        assert!(said.starts_with("spec.rules: ") && said.contains("262144 bytes"), "{said}");
        assert_eq!(read.effects.len(), left, "{action}: each port is kept");
        let whole = |effect: &&Effect| match effect {
            Effect::Allow(rule) | Effect::Deny(rule) | Effect::Audit(rule) => rule.ids.len() == 60,
            Effect::Close(ports) => ports.is_empty(),
        };
        assert_eq!(read.effects.iter().filter(whole).count(), 19, "{action}");
        assert_eq!(Authorization::read(&long(action, 19), &author).wrong, None);
    }
    // What is not read is closed, and no more.
    let view = told(&compiled(&[("shop/it", long("Deny", 32))]).encoded);
    let closed = view.deny.iter().find(|rule| rule.name == CLOSED).unwrap();
    assert_eq!(closed.ports, (8019..8032).collect());
}

#[test]
fn what_decides_closes_where_it_is_too_long_and_what_is_audited_goes_first() {
    let short = || ("shop/short", allow(&[80], json!({ "namespaces": ["a"] })));
    let over = compiled(&[("shop/a", long("Allow", 10)), ("shop/b", long("Deny", 10)), short()]);
    let view = told(&over.encoded);
    assert!(over.is_over);
    assert_eq!(lines(&view.allow), [format!("{CLOSED}  <  @ ")]);
    for audited in [2, 18] {
        let over = compiled(&[
            ("shop/a", long("Allow", 18)),
            ("shop/audit", long("Audit", audited)),
            short(),
        ]);
        let view = told(&over.encoded);
        assert!(over.is_over);
        assert_eq!((view.allow.len(), view.deny.len(), view.audit.len()), (19, 0, 0));
    }
}
