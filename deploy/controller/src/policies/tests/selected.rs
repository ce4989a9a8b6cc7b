//! Whom policies are about, and who is told of a change.
//!
//! Never: a workload that is told what is not about it, but one whose pod is not known.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::json;

use super::*;
use crate::metrics::Metrics;
use crate::policies::{Following, Policies};

fn ns(name: &str) -> Value {
    json!({ "namespaces": [name] })
}

fn allowed(policies: &[(&str, Value)], caller: &Caller) -> Vec<String> {
    let view = view(&catalog(&[], policies), caller);
    view.allow.iter().map(|rule| rule.name.clone()).collect()
}

#[test]
fn a_policy_is_about_whom_it_names() {
    let policies = [
        ("myelin-system/mesh", allow(&[80], ns("a"))),
        ("myelin-system/web", target("ServiceAccount", "web", allow(&[80], ns("a")))),
        ("other/all", allow(&[80], ns("a"))),
        ("shop/account", target("ServiceAccount", "web", allow(&[80], ns("a")))),
        ("shop/all", allow(&[80], ns("a"))),
        ("shop/behind", target("Service", "web", allow(&[80], ns("a")))),
        ("shop/selectorless", target("Service", "all", allow(&[80], ns("a")))),
        ("shop/none", target("Service", "none", allow(&[80], ns("a")))),
    ];
    let of = |account: &str, address: &str| allowed(&policies, &caller(account, address));
    assert_eq!(
        of("shop/web", "10.1.0.1"),
        ["myelin-system/mesh", "shop/account", "shop/all", "shop/behind"]
    );
    assert_eq!(of("shop/web", "fd00::1"), of("shop/web", "10.1.0.1"));
    assert_eq!(of("shop/db", "10.1.0.2"), ["myelin-system/mesh", "shop/all"]);
    let root = of("myelin-system/web", "10.1.0.7");
    assert_eq!(root, ["myelin-system/mesh", "myelin-system/web"]);
    // An identity that is no pod's: what holds for the whole mesh.
    let machine = Caller { account: None, addresses: vec!["10.1.0.1".parse().unwrap()] };
    assert_eq!(allowed(&policies, &machine), ["myelin-system/mesh"]);
}

#[test]
fn one_of_several_targets_is_enough() {
    let mut spec = allow(&[80], ns("a"));
    spec["targetRefs"] =
        json!([{ "kind": "Service", "name": "none" }, { "kind": "ServiceAccount", "name": "db" }]);
    assert_eq!(allowed(&[("shop/it", spec.clone())], &caller("shop/db", "10.1.0.2")), ["shop/it"]);
    assert!(allowed(&[("shop/it", spec)], &caller("shop/web", "10.1.0.1")).is_empty());
}

/// Another's address, an unknown one, a second pod that fits as well, none.
#[test]
fn whose_pod_is_not_known_gets_what_restricts_and_nothing_that_opens() {
    let deny = |from: Value| {
        let rules = json!([{ "from": [from], "to": [{ "ports": [81] }] }]);
        target("Service", "web", json!({ "action": "Deny", "rules": rules }))
    };
    let audit = json!({ "action": "Audit", "rules": [{ "from": [ns("a")] }] });
    let policies = [
        ("shop/all", allow(&[80], ns("a"))),
        ("shop/audit", target("Service", "web", audit)),
        ("shop/behind", target("Service", "web", allow(&[8080], ns("b")))),
        ("shop/deny", deny(ns("c"))),
        ("shop/db", target("ServiceAccount", "db", allow(&[80], ns("d")))),
    ];
    let mut catalog = catalog(&[], &policies);
    catalog.pods(News::Now(pod("shop/web-1", "web", &[("app", "web")], &["10.1.0.3"])));
    catalog.pods(News::Now(pod("shop/web-2", "web", &[("app", "old")], &["10.1.0.3"])));
    let none = Caller { addresses: Vec::new(), ..caller("shop/web", "10.1.0.1") };
    let mut both = caller("shop/web", "10.1.0.1");
    both.addresses.push("10.1.0.99".parse().unwrap());
    let at = |address: &str| caller("shop/web", address);
    for who in [at("10.1.0.2"), at("10.9.9.9"), at("10.1.0.3"), none, both] {
        let view = view(&catalog, &who);
        let expected = ["shop/all 80 < ns a @ ", "shop/behind 8080 <  @ "];
        assert_eq!(lines(&view.allow), expected, "{who:?}");
        assert_eq!(lines(&view.deny), ["shop/deny 81 < ns c @ "], "{who:?}");
        assert!(view.audit.is_empty(), "{who:?}");
    }
    let known = view(&catalog, &caller("shop/web", "10.1.0.1"));
    assert_eq!(lines(&known.allow), ["shop/all 80 < ns a @ ", "shop/behind 8080 < ns b @ "]);
    assert_eq!(known.audit.len(), 1);
}

struct Hub {
    policies: Arc<Policies>,
    web: Following,
    db: Following,
    other: Following,
}

impl Hub {
    fn new() -> Self {
        let policies = Policies::new(domain(), ROOT, Arc::new(Metrics::new()));
        assert!(!policies.is_complete());
        policies.policies(Kind::Authentication, News::All(Vec::new()));
        policies.policies(Kind::Authorization, News::All(Vec::new()));
        policies.services(News::All(vec![service("shop/web", &[("app", "web")])]));
        assert!(!policies.is_complete(), "before pods were listed");
        policies.pods(News::All(vec![
            pod("shop/web-0", "web", &[("app", "web")], &["10.1.0.1"]),
            pod("shop/db-0", "db", &[], &["10.1.0.2"]),
        ]));
        assert!(policies.is_complete());
        let at = |account: &str, address: &str| {
            policies.follow(&id(account), &[address.parse().unwrap()])
        };
        let (web, db) = (at("shop/web", "10.1.0.1"), at("shop/db", "10.1.0.2"));
        let other = at("other/web", "10.1.0.3");
        Self { policies, web, db, other }
    }

    fn put(&self, name: &str, spec: &Value) {
        self.policies.policies(Kind::Authorization, News::Now(object(name, spec)));
    }

    /// Who was woken since the last look: web, db, other.
    fn woken(&self) -> [bool; 3] {
        [&self.web, &self.db, &self.other].map(|it| it.woken().now_or_never().is_some())
    }
}

#[test]
fn only_those_are_told_for_whom_something_has_changed() {
    let hub = Hub::new();
    assert_eq!(hub.woken(), [false; 3]);
    hub.put("shop/all", &allow(&[80], ns("a")));
    assert_eq!(hub.woken(), [true, true, false]);
    // The same once more, as a watch does that begins anew; a status that was written; another order.
    hub.put("shop/all", &allow(&[80], ns("a")));
    hub.put("shop/all", &allow(&[80, 80], ns("a")));
    assert_eq!(hub.woken(), [false; 3]);
    hub.put("shop/web", &target("Service", "web", allow(&[80], ns("b"))));
    assert_eq!(hub.woken(), [true, false, false]);
    hub.put("myelin-system/mesh", &allow(&[81], ns("c")));
    assert_eq!(hub.woken(), [true; 3]);
    // A pod gets the Service's label, and loses it; others' pods come and go.
    let db = |app: &str| News::Now(pod("shop/db-0", "db", &[("app", app)], &["10.1.0.2"]));
    hub.policies.pods(db("web"));
    assert_eq!(hub.woken(), [false, true, false]);
    hub.policies.pods(db("db"));
    assert_eq!(hub.woken(), [false, true, false]);
    hub.policies.pods(News::Now(pod("shop/more", "web", &[("app", "web")], &["10.1.0.8"])));
    assert_eq!(hub.woken(), [false; 3]);
    // The Service selects others; it is gone.
    hub.policies.services(News::Now(service("shop/web", &[("app", "db")])));
    assert_eq!(hub.woken(), [true, true, false]);
    hub.policies.services(News::Gone(gone("shop/web")));
    assert_eq!(hub.woken(), [false, true, false]);
    hub.policies.policies(Kind::Authorization, News::Gone(gone("myelin-system/mesh")));
    assert_eq!(hub.woken(), [true; 3]);
    hub.policies.policies(Kind::Authorization, News::All(Vec::new()));
    assert_eq!(hub.woken(), [true, true, false]);
    assert_eq!(told(&hub.web.now()), PolicyView::default());
}

#[test]
fn a_pod_that_becomes_known_gets_its_own() {
    let hub = Hub::new();
    hub.put("shop/web", &target("Service", "web", allow(&[80], ns("b"))));
    let late = hub.policies.follow(&id("shop/web"), &["10.1.0.9".parse().unwrap()]);
    assert_eq!(lines(&told(&late.now()).allow), ["shop/web 80 <  @ "]);
    hub.policies.pods(News::Now(pod("shop/late", "web", &[("app", "web")], &["10.1.0.9"])));
    assert!(late.woken().now_or_never().is_some());
    assert_eq!(lines(&told(&late.now()).allow), ["shop/web 80 < ns b @ "]);
    // Somebody else's by now.
    hub.policies.pods(News::Gone(gone("shop/late")));
    assert!(late.woken().now_or_never().is_some());
    hub.policies.pods(News::Now(pod("other/x", "web", &[("app", "web")], &["10.1.0.9"])));
    assert_eq!(lines(&told(&late.now()).allow), ["shop/web 80 <  @ "]);
}

#[test]
fn two_controllers_tell_the_same_in_the_same_words() {
    let policies = [
        ("shop/a", allow(&[80, 81], json!({ "namespaces": ["x", "y"], "cidrs": ["10.0.0.0/8"] }))),
        ("shop/b", allow(&[80], ns("z"))),
    ];
    let mut turned: Vec<_> = policies.to_vec();
    turned.reverse();
    let version = |policies: &[(&str, Value)]| {
        let catalog = catalog(&[], policies);
        let subject = catalog.subject(&caller("shop/web", "10.1.0.1"));
        catalog.compile(&subject).encoded.version()
    };
    assert_eq!(version(&policies), version(&turned));
    assert_ne!(version(&policies), version(&policies[..1]));
}

/// So that nothing is kept of it.
#[test]
fn what_is_said_of_a_policy_that_is_gone_is_judged_again() {
    let it = |name: &str| {
        let object = object(name, &json!({}));
        (Kind::Authorization, object.key())
    };
    let policies = [("shop/a", json!({})), ("shop/b", json!({})), ("shop/c", json!({}))];
    let mut catalog = catalog(&[], &policies);
    let touched = catalog.policies(Kind::Authorization, News::Gone(gone("shop/a")));
    assert_eq!(touched.policies, [it("shop/a")].into());
    let now = vec![object("shop/c", &json!({})), object("shop/d", &json!({}))];
    let touched = catalog.policies(Kind::Authorization, News::All(now));
    assert_eq!(touched.policies, [it("shop/b"), it("shop/c"), it("shop/d")].into());
}

#[test]
fn the_accepted_are_counted_through_whatever_befalls_them() {
    let (good, web) = (allow(&[80], ns("a")), target("Service", "late", allow(&[80], ns("a"))));
    let mut catalog = catalog(&[("shop/pa", json!({}))], &[("shop/a", json!({}))]);
    let authorizations = |catalog: &Catalog| catalog.count(Kind::Authorization);
    assert_eq!(authorizations(&catalog), [0, 1]);
    let put = |catalog: &mut Catalog, name: &str, spec: &Value| {
        catalog.policies(Kind::Authorization, News::Now(object(name, spec)));
        authorizations(catalog)
    };
    assert_eq!(put(&mut catalog, "shop/a", &good), [1, 0]);
    assert_eq!(put(&mut catalog, "shop/b", &web), [1, 1]);
    catalog.services(News::Now(service("shop/late", &[("app", "late")])));
    assert_eq!(authorizations(&catalog), [2, 0]);
    catalog.services(News::All(vec![]));
    assert_eq!(authorizations(&catalog), [1, 1]);
    catalog.policies(Kind::Authorization, News::Gone(gone("shop/b")));
    assert_eq!(authorizations(&catalog), [1, 0]);
    assert_eq!(put(&mut catalog, "shop/c", &json!({})), [1, 1]);
    catalog.policies(Kind::Authorization, News::All(vec![object("shop/a", &good)]));
    assert_eq!(authorizations(&catalog), [1, 0]);
    assert_eq!(catalog.count(Kind::Authentication), [0, 1]);
}
