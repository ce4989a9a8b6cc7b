//! What follows from policies: read from JSON, judged by rank, compiled for one workload, told to the
//! streams that it concerns.
//!
//! Never: a socket (`followed` has one, to the fake of the API); a clock.

// SPDX-License-Identifier: Apache-2.0

mod bounds;
mod demands;
mod followed;
mod rules;
mod selected;

use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::policy::{EncodedPolicy, PolicyAnswer, PolicyView, RuleView};
use serde_json::{Value, json};

use super::catalog::Catalog;
use super::objects::{Kind, Pod, Policy, Service};
use super::workloads::Caller;
use crate::cluster::{Meta, News};

const ROOT: &str = "myelin-system";

/// A second of the Unix epoch, and how people write it.
const SOON: (u64, &str) = (1_800_000_000, "2027-01-15T08:00:00Z");
const LATE: (u64, &str) = (1_900_000_000, "2030-03-17T17:46:40Z");

fn domain() -> TrustDomain {
    TrustDomain::parse("td.example").unwrap()
}

fn id(account: &str) -> SpiffeId {
    let (namespace, account) = account.split_once('/').unwrap();
    SpiffeId::workload(&domain(), namespace, account).unwrap()
}

fn object(name: &str, spec: &Value) -> Policy {
    let (namespace, name) = name.split_once('/').unwrap();
    let metadata = json!({ "namespace": namespace, "name": name, "generation": 1 });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

fn gone(name: &str) -> Meta {
    let (namespace, name) = name.split_once('/').unwrap();
    Meta { namespace: namespace.to_owned(), name: name.to_owned(), ..Meta::default() }
}

fn service(name: &str, selector: &[(&str, &str)]) -> Service {
    let (namespace, name) = name.split_once('/').unwrap();
    let selector = selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Service { namespace: namespace.to_owned(), name: name.to_owned(), selector: selector.collect() }
}

fn pod(name: &str, account: &str, labels: &[(&str, &str)], addresses: &[&str]) -> Pod {
    let (namespace, name) = name.split_once('/').unwrap();
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        account: account.to_owned(),
        labels: service(&format!("a/{name}"), labels).selector,
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
    }
}

fn caller(account: &str, address: &str) -> Caller {
    let account = account.split_once('/');
    Caller {
        account: account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
        addresses: vec![address.parse().unwrap()],
    }
}

/// Shop's pod `web-0` is behind the Service `web`, its pod `db-0` is not.
fn catalog(authentications: &[(&str, Value)], authorizations: &[(&str, Value)]) -> Catalog {
    let mut catalog = Catalog::new(domain(), ROOT.to_owned());
    let all = |list: &[(&str, Value)]| {
        News::All(list.iter().map(|(name, spec)| object(name, spec)).collect())
    };
    catalog.policies(Kind::Authentication, all(authentications));
    catalog.policies(Kind::Authorization, all(authorizations));
    catalog.services(News::All(vec![
        service("shop/web", &[("app", "web")]),
        service("shop/all", &[]),
        service("other/web", &[("app", "web")]),
    ]));
    catalog.pods(News::All(vec![
        pod("shop/web-0", "web", &[("app", "web"), ("pod", "0")], &["10.1.0.1", "fd00::1"]),
        pod("shop/db-0", "db", &[("app", "db")], &["10.1.0.2"]),
    ]));
    catalog
}

fn view(catalog: &Catalog, caller: &Caller) -> PolicyView {
    told(&catalog.compile(&catalog.subject(caller)).encoded)
}

/// As a sidecar reads it.
fn told(encoded: &EncodedPolicy) -> PolicyView {
    match PolicyAnswer::try_from(encoded.answer(None)).unwrap() {
        PolicyAnswer::Policy(_, view) => view,
        PolicyAnswer::Unchanged(_) => panic!("nothing was known"),
    }
}

/// One rule in a line: `ports < whom @ where`.
fn line(rule: &RuleView) -> String {
    let join = |list: Vec<String>| list.join(",");
    let ports = join(rule.ports.iter().map(ToString::to_string).collect());
    let ids = rule.ids.iter().map(|id| id.as_str().trim_start_matches("spiffe://").to_owned());
    let whom = join(ids.chain(rule.namespaces.iter().map(|name| format!("ns {name}"))).collect());
    let cidrs = join(rule.cidrs.iter().map(ToString::to_string).collect());
    format!("{} {ports} < {whom} @ {cidrs}", rule.name)
}

fn lines<'r>(rules: impl IntoIterator<Item = &'r RuleView>) -> Vec<String> {
    rules.into_iter().map(line).collect()
}

fn allow(ports: &[u16], from: Value) -> Value {
    json!({ "action": "Allow", "rules": [{ "from": [from], "to": [{ "ports": ports }] }] })
}

fn target(kind: &str, name: &str, mut spec: Value) -> Value {
    spec["targetRefs"] = json!([{ "group": "", "kind": kind, "name": name }]);
    spec
}
