//! PeerAuthentications: which of several counts for a port.
//!
//! Never: a port that is permissive longer than the strictest of equals.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::policy::{Mode, PortView};
use serde_json::{Value, json};

use super::*;
use crate::policies::authentication::Authentication;
use crate::policies::date;

fn permissive(until: &str) -> Value {
    json!({ "mode": "Permissive", "until": until })
}

fn strict() -> Value {
    json!({ "mode": "Strict" })
}

/// One port of its own, and nothing else.
fn port(port: u16, mut demand: Value) -> Value {
    demand["port"] = json!(port);
    json!({ "ports": [demand] })
}

/// What ports 0 (all others), 80 and 81 demand of shop's web.
fn demanded(policies: &[(&str, Value)]) -> Demanded {
    demanded_of(policies, "10.1.0.1")
}

fn demanded_of(policies: &[(&str, Value)], address: &str) -> Demanded {
    let view = view(&catalog(policies, &[]), &caller("shop/web", address));
    let at = |port: u16| view.ports.get(&port).and_then(|it: &PortView| it.mode).or(view.mode);
    [at(0), at(80), at(81)]
}

/// Of all other ports, of 80 and of 81.
type Demanded = [Option<Mode>; 3];

const STRICT: Option<Mode> = Some(Mode::Strict);
const UNTIL_SOON: Option<Mode> = Some(Mode::Permissive { until: SOON.0 });
const UNTIL_LATE: Option<Mode> = Some(Mode::Permissive { until: LATE.0 });

#[test]
fn the_most_exact_wins_and_of_equals_the_stricter() {
    let (soon, late) = (permissive(SOON.1), permissive(LATE.1));
    let web = |spec: &Value| target("Service", "web", spec.clone());
    let account = |spec: &Value| target("ServiceAccount", "web", spec.clone());
    let table: Vec<(Vec<(&str, Value)>, Demanded)> = vec![
        (vec![], [None; 3]),
        (vec![("myelin-system/mesh", soon.clone())], [UNTIL_SOON; 3]),
        (vec![("myelin-system/mesh", soon.clone()), ("shop/all", strict())], [STRICT; 3]),
        (vec![("myelin-system/mesh", strict()), ("shop/all", soon.clone())], [UNTIL_SOON; 3]),
        (vec![("shop/all", strict()), ("shop/web", web(&soon))], [UNTIL_SOON; 3]),
        (vec![("shop/all", soon.clone()), ("shop/web", account(&strict()))], [STRICT; 3]),
        // Both name it exactly.
        (vec![("shop/a", web(&soon)), ("shop/b", account(&strict()))], [STRICT; 3]),
        (vec![("shop/a", web(&soon)), ("shop/b", account(&late))], [UNTIL_SOON; 3]),
        (vec![("shop/a", late.clone()), ("shop/b", soon.clone())], [UNTIL_SOON; 3]),
        // A port's own demand, from wherever, before one for all ports.
        (
            vec![("myelin-system/mesh", port(80, late.clone())), ("shop/web", web(&strict()))],
            [STRICT, UNTIL_LATE, STRICT],
        ),
        (
            vec![("shop/all", port(80, late.clone())), ("shop/web", web(&port(80, strict())))],
            [None, STRICT, None],
        ),
        (
            vec![("shop/a", port(80, late.clone())), ("shop/b", port(80, soon.clone()))],
            [None, UNTIL_SOON, None],
        ),
        // Of others.
        (
            vec![
                ("shop/db", target("ServiceAccount", "db", soon.clone())),
                ("shop/none", target("Service", "none", soon.clone())),
                ("shop/all", target("Service", "all", soon.clone())),
                ("other/all", soon.clone()),
                ("other/web", web(&soon)),
            ],
            [None; 3],
        ),
        // The mesh's own namespace is a namespace like others where it names somebody.
        (vec![("myelin-system/web", web(&soon))], [None; 3]),
    ];
    for (policies, expected) in table {
        assert_eq!(demanded(&policies), expected, "{policies:?}");
    }
}

#[test]
fn flags_count_where_all_equals_have_them() {
    let flags = |first: bool, tls: bool| {
        let mut demand = permissive(SOON.1);
        (demand["serverFirst"], demand["workloadTls"]) = (json!(first), json!(tls));
        port(25, demand)
    };
    let at = |policies: &[(&str, Value)]| {
        let view = view(&catalog(policies, &[]), &caller("shop/web", "10.1.0.1"));
        (view.ports[&25].server_first, view.ports[&25].workload_tls)
    };
    assert_eq!(at(&[("shop/a", flags(true, true))]), (true, true));
    assert_eq!(at(&[("shop/a", flags(true, true)), ("shop/b", flags(true, false))]), (true, false));
}

#[test]
fn whatever_cannot_be_read_is_strict() {
    let ports = |list: Value| json!({ "mode": "Permissive", "until": SOON.1, "ports": list });
    let table: Vec<(Value, Demanded)> = vec![
        (Value::Null, [STRICT; 3]),
        (json!({ "mode": "permissive" }), [STRICT; 3]),
        (json!({ "mode": "Permissive" }), [STRICT; 3]),
        (json!({ "mode": "Permissive", "until": "1970-01-01T00:00:00Z" }), [STRICT; 3]),
        (json!({ "mode": "Permissive", "until": "tomorrow" }), [STRICT; 3]),
        (json!({ "mode": "Strict", "until": SOON.1 }), [STRICT; 3]),
        (json!({ "until": SOON.1 }), [STRICT; 3]),
        (json!({ "mode": "Permissive", "until": SOON.1, "selector": {} }), [STRICT; 3]),
        (ports(json!([{ "port": 80, "mode": "Strct" }])), [UNTIL_SOON, STRICT, UNTIL_SOON]),
        (ports(json!([{ "port": 80 }])), [UNTIL_SOON, STRICT, UNTIL_SOON]),
        (
            ports(json!([{ "port": 80, "mode": "Permissive", "until": LATE.1, "tls": true }])),
            [UNTIL_SOON, STRICT, UNTIL_SOON],
        ),
        // Which port it is about is not known.
        (ports(json!([{ "port": 0, "mode": "Strict" }])), [STRICT; 3]),
        (ports(json!([{ "port": "80", "mode": "Strict" }])), [STRICT; 3]),
        (ports(json!({ "80": "Strict" })), [STRICT; 3]),
        (
            ports(json!([
                { "port": 80, "mode": "Permissive", "until": LATE.1 },
                { "port": 80, "mode": "Strict" },
            ])),
            [UNTIL_SOON, STRICT, UNTIL_SOON],
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(demanded(&[("shop/it", spec.clone())]), expected, "{spec}");
    }
    // Whom it is about is not known: it opens nobody, and closes all who may be meant.
    let targets = json!([{ "kind": "Deployment", "name": "web" }]);
    let with = |mut spec: Value| {
        spec["targetRefs"] = targets.clone();
        spec
    };
    assert_eq!(demanded(&[("shop/it", with(permissive(SOON.1)))]), [None; 3]);
    let all = ("shop/all", permissive(SOON.1));
    assert_eq!(demanded(&[all.clone(), ("shop/it", with(strict()))]), [STRICT; 3]);
    // In the mesh's own namespace all of the mesh may be meant.
    assert_eq!(demanded(&[("myelin-system/it", with(permissive(SOON.1)))]), [None; 3]);
    assert_eq!(demanded(&[("myelin-system/it", with(strict()))]), [STRICT; 3]);
    assert_eq!(demanded(&[("myelin-system/it", json!("Strict"))]), [STRICT; 3]);
    assert_eq!(demanded(&[all, ("other/it", with(strict()))]), [UNTIL_SOON; 3]);
}

/// The ports that such a list is about may be any, so no demand that it may have meant to end holds.
#[test]
fn a_list_of_ports_that_cannot_be_read_closes_ports_that_others_name() {
    let mesh = || ("myelin-system/mesh", port(80, permissive(LATE.1)));
    let unread = || json!({ "mode": "Permissive", "until": SOON.1, "ports": [{ "port": "80" }] });
    let web = |spec: Value| target("Service", "web", spec);
    assert_eq!(demanded(&[mesh(), ("shop/it", unread())]), [STRICT; 3]);
    assert_eq!(demanded(&[mesh(), ("shop/it", web(unread()))]), [STRICT; 3]);
    assert_eq!(demanded(&[mesh(), ("shop/it", Value::Null)]), [STRICT; 3]);
    assert_eq!(demanded(&[mesh(), ("shop/it", json!({ "newer": 1 }))]), [STRICT; 3]);
    // It would have named a port before what is about all ports.
    let all = ("shop/web", web(permissive(SOON.1)));
    assert_eq!(demanded(&[all, ("shop/it", unread())]), [STRICT; 3]);
    // One that names the port, and is more exact, counts before it.
    let own = ("shop/web", web(port(80, permissive(SOON.1))));
    assert_eq!(demanded(&[own, ("shop/it", unread())]), [STRICT, UNTIL_SOON, STRICT]);
    let of_others = target("ServiceAccount", "db", unread());
    assert_eq!(demanded(&[mesh(), ("shop/it", of_others)]), [None, UNTIL_LATE, None]);
}

#[test]
fn each_error_has_its_place() {
    for (spec, place) in [
        (json!({}), "spec: "),
        (json!({ "mode": "Off" }), "spec.mode: "),
        (json!({ "mode": "Permissive", "until": "2027" }), "spec.until: "),
        (
            json!({ "ports": [{ "port": 1, "mode": "Strict" }, { "port": 70_000 }] }),
            "spec.ports[1].port: ",
        ),
        (
            json!({ "mode": "Strict", "targetRefs": [{ "kind": "Pod" }] }),
            "spec.targetRefs[0].name: ",
        ),
    ] {
        let said = Authentication::read(&spec).wrong.unwrap().0;
        assert!(said.starts_with(place), "{said}, expected {place}");
    }
    assert_eq!(Authentication::read(&strict()).wrong, None);
}

#[test]
fn moments_are_read_as_rfc_3339_writes_them() {
    for (text, expected) in [
        ("2027-01-15T08:00:00Z", Some(SOON.0)),
        ("2027-01-15T10:00:00+02:00", Some(SOON.0)),
        ("2027-01-15T03:30:00-04:30", Some(SOON.0)),
        ("2027-01-15T08:00:00.75Z", Some(SOON.0)),
        ("1970-01-01T00:00:00+00:01", None),
        ("2027-01-15T08:00:00", None),
        ("2027-01-15", None),
        ("2027-01-15T08:00:00+2:00", None),
        ("2027-01-15T08:00:00+24:00", None),
        ("2027-01-15T08:00:00+02:60", None),
        ("2027-13-15T08:00:00Z", None),
        ("", None),
        ("T", None),
        ("2027-01-15TZ", None),
        ("\u{fe}027-01-15T08:00:00Z", None),
    ] {
        assert_eq!(date::unix_seconds(text), expected, "{text}");
    }
}

#[test]
fn a_pod_that_is_not_known_gets_the_strictest_of_what_it_may_be() {
    let unknown = |policies: &[(&str, Value)]| demanded_of(policies, "10.9.9.9");
    let (soon, late) = (permissive(SOON.1), permissive(LATE.1));
    let web = |spec: Value| target("Service", "web", spec);
    // Permissive only if it is behind the Service; perhaps it is not.
    assert_eq!(unknown(&[("shop/web", web(soon.clone()))]), [None; 3]);
    assert_eq!(unknown(&[("shop/all", strict()), ("shop/web", web(soon.clone()))]), [STRICT; 3]);
    assert_eq!(unknown(&[("shop/all", late.clone()), ("shop/web", web(strict()))]), [STRICT; 3]);
    assert_eq!(
        unknown(&[("shop/all", late.clone()), ("shop/web", web(soon.clone()))]),
        [UNTIL_SOON; 3]
    );
    assert_eq!(
        unknown(&[("shop/all", late.clone()), ("shop/web", web(port(80, strict())))]),
        [UNTIL_LATE, STRICT, UNTIL_LATE]
    );
    assert_eq!(unknown(&[("shop/web", web(port(80, soon.clone())))]), [None; 3]);
    // Behind one of two Services, and nobody knows behind which.
    assert_eq!(
        unknown(&[
            ("shop/all", late.clone()),
            ("shop/a", target("Service", "a", port(80, soon.clone()))),
            ("shop/b", target("Service", "b", strict())),
        ]),
        [STRICT; 3]
    );
    // More than are judged one by one.
    for (count, expected) in [(64, UNTIL_SOON), (65, STRICT)] {
        let names: Vec<String> = (0..count).map(|at| format!("shop/s{at}")).collect();
        let of = |name| (name, target("Service", "s", soon.clone()));
        let mut policies: Vec<_> = names.iter().map(String::as_str).map(of).collect();
        policies.push(("shop/all", late.clone()));
        policies.push(("shop/port", port(80, soon.clone())));
        assert_eq!(unknown(&policies), [expected; 3], "{count}");
    }
    // What is about its account is about it.
    let account = target("ServiceAccount", "web", soon);
    assert_eq!(unknown(&[("shop/all", strict()), ("shop/account", account)]), [UNTIL_SOON; 3]);
}
