//! Annotations: what each of them does, and what a wrong one says.
//!
//! Never: an annotation that docs/INJECTION.md does not list.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::time::Duration;

use myelin_identity::id::SpiffeId;
use myelin_sidecar::policy::Mode;

use super::*;

fn wish(name: &str, value: &str) -> Value {
    annotated(plain(), &format!("myelin.dev/{name}"), value)
}

#[test]
fn each_annotation_reaches_the_sidecar() {
    let told_by = |name: &str, value: &str| told(&injected(&wish(name, value)));
    assert_eq!(told_by("log-level", "debug").log.level.word(), "debug");
    assert_eq!(told_by("drain-timeout", "20s").limits.drain_timeout, Duration::from_secs(20));
    assert_eq!(told(&injected(&plain())).limits.drain_timeout, Duration::from_secs(5));
    assert_eq!(told_by("mode", "strict").policy.default, Mode::Strict);
    let plain_mtls = told_by("plain-mtls-ports", "9102, 9103").policy.ports;
    assert!(plain_mtls[&9102].plain_mtls.is_some() && plain_mtls[&9103].plain_mtls.is_some());
    assert!(told_by("server-first-ports", "25").policy.ports[&25].server_first);
    let pod = annotated(wish("mode", "permissive"), "myelin.dev/permissive-until", "2030-01-01");
    let (pod, warnings) = injected_with(&pod, &settings());
    assert_eq!(told(&pod).policy.default, Mode::Permissive { until: 1_893_456_000 });
    assert!(warnings[0].contains("takes plaintext until 2030-01-01"), "{warnings:?}");
}

#[test]
fn exclusions_reach_the_rules_and_the_file_alike_and_are_warned_of() {
    let mut pod = plain();
    for (name, value) in [
        ("exclude-outbound-ports", "53,8125"),
        ("exclude-inbound-ports", "22"),
        ("exclude-cidrs", "192.0.2.0/24, 2001:db8::/32"),
        ("exclude-uids", "100"),
    ] {
        pod = annotated(pod, &format!("myelin.dev/{name}"), value);
    }
    let (pod, warnings) = injected_with(&pod, &settings());
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    let rules = told(&pod).interception();
    assert_eq!(rules.exclude_outbound_ports, [53, 8125]);
    assert_eq!(rules.exclude_inbound_ports, [22]);
    assert_eq!(rules.exclude_cidrs.len(), 2);
    assert_eq!(rules.exclude_uids, [100]);
    let args = &pod["spec"]["initContainers"][0]["args"];
    assert_eq!(
        args,
        &json!([
            "intercept",
            "apply",
            "--proxy-uid",
            "1337",
            "--mark",
            "0",
            "--exclude-outbound-port",
            "53,8125",
            "--exclude-inbound-port",
            "22",
            "--exclude-cidr",
            "192.0.2.0/24,2001:db8::/32",
            "--exclude-uid",
            "100",
        ])
    );
}

#[test]
fn resources_are_the_meshs_or_the_pods_own() {
    let of = |pod: &Value| injected(pod)["spec"]["initContainers"][1]["resources"].clone();
    let requests = json!({ "cpu": "10m", "memory": "32Mi" });
    assert_eq!(of(&plain()), json!({ "requests": requests, "limits": { "memory": "256Mi" } }));
    let own = annotated(wish("cpu-limit", "500m"), "myelin.dev/memory-request", "64Mi");
    let requests = json!({ "cpu": "10m", "memory": "64Mi" });
    let limits = json!({ "cpu": "500m", "memory": "256Mi" });
    assert_eq!(of(&own), json!({ "requests": requests, "limits": limits }));
}

#[test]
fn exceptions_of_the_meshs_operator_are_in_every_sidecars_file() {
    let dns = Exception {
        name: "dns".to_owned(),
        address: "10.96.0.10".parse().unwrap(),
        port: Some(53),
    };
    let any =
        Exception { name: "api".to_owned(), address: "10.96.0.1".parse().unwrap(), port: None };
    let settings = Settings { exceptions: vec![dns, any], ..settings() };
    let config = told(&injected_with(&plain(), &settings).0);
    let places: Vec<_> =
        config.directory.exceptions.iter().map(|exception| exception.place.1).collect();
    assert_eq!(places, [Some(53), None]);
}

#[test]
fn a_sidecar_is_told_of_the_controllers_where_they_tell_of_services() {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/myelin-system/sa/myelin-controller");
    let controllers =
        Controllers { address: vec!["10.96.0.6:15014".parse().unwrap()], id: id.unwrap() };
    let with = Settings { services: Some(controllers.clone()), ..settings() };
    let config = told(&injected_with(&plain(), &with).0);
    assert!(config.policies.is_none(), "only services");
    let both = Settings { policies: Some(controllers.clone()), ..with };
    let policies = told(&injected_with(&plain(), &both).0).policies.unwrap();
    assert_eq!((&policies.id, policies.addresses[0].0), (&controllers.id, controllers.address[0]));
    let services = config.services.unwrap();
    assert_eq!(services.id, controllers.id);
    assert_eq!(services.addresses[0].0, controllers.address[0]);
    assert!(told(&injected_with(&plain(), &settings()).0).services.is_none());
}

#[test]
fn a_wrong_annotation_refuses_the_pod_with_the_reason() {
    for (name, value, expected) in [
        ("mode", "strickt", "is \"strickt\", expected strict or permissive: write one of these"),
        (
            "mode",
            "permissive",
            "expected a date on which it ends: write myelin.dev/permissive-until",
        ),
        ("permissive-until", "2030-01-01", "expected no date without mode permissive"),
        ("permissive-until", "tomorrow", "expected a date, or a date and time with an offset"),
        ("permissive-until", "18:00:00", "expected a date, or a date and time with an offset"),
        ("plain-mtls-ports", "http", "is \"http\", expected ports from 1 to 65535"),
        ("server-first-ports", "0", "is \"0\", expected ports from 1 to 65535"),
        ("exclude-outbound-ports", "", "is \"\", expected ports"),
        ("exclude-outbound-ports", "53,,54", "is \"\", expected ports"),
        ("exclude-inbound-ports", "65536", "is \"65536\", expected ports"),
        ("exclude-cidrs", "10.1.2.3/8", "has bits set behind its prefix: write 10.0.0.0/8"),
        ("exclude-uids", "root", "is \"root\", expected numbers of users"),
        ("log-level", "verbose", "expected error or warn or info or debug or trace"),
        ("drain-timeout", "20", "expected a duration: write for example \"20s\""),
        ("drain-timeout", "2h", "would not take its configuration"),
        ("cpu-request", "a lot", "expected a Kubernetes quantity: write for example \"50m\""),
        ("memory-limit", "0", "expected a Kubernetes quantity"),
        ("exclude-inbound-port", "22", "there is no annotation myelin.dev/exclude-inbound-port"),
        ("inject", "enabled", "there is no annotation myelin.dev/inject"),
        ("", "x", "there is no annotation myelin.dev/"),
    ] {
        let line = refusal(&wish(name, value));
        assert!(line.contains(expected), "{name}: {line}");
    }
    // Somebody else's are nobody's business here.
    injected(&annotated(plain(), "example.org/mode", "strickt"));
    assert!(refusal(&fixture("conflicting-annotations")).contains("no date without mode"));
}

#[test]
fn exclusions_that_the_rules_refuse_are_refused_here() {
    for (name, value) in [("exclude-inbound-ports", "15006"), ("exclude-uids", "1337")] {
        let line = refusal(&wish(name, value));
        assert!(line.contains(value), "{line}");
    }
}

#[test]
fn quantities_are_told_from_what_is_none() {
    for text in ["1", "10m", "0.5", "64Mi", "1Gi", "1000000", "2k"] {
        assert!(is_quantity(text), "{text}");
    }
    for text in ["", "0", "m", "1.", ".5", "1.2.3", "-1", "1 Gi", "1gi", "64MB", "0Mi", "1e3x"] {
        assert!(!is_quantity(text), "{text}");
    }
}

#[test]
fn the_documentation_lists_every_label_and_annotation_and_no_other() {
    let document = include_str!("../../../../../docs/INJECTION.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `myelin.dev/"));
    let documented: BTreeSet<String> =
        rows.map(|row| format!("myelin.dev/{}", row.split('`').next().unwrap())).collect();
    let coded = SETTINGS.iter().chain(&OURS).chain(&[INJECT, REVISION]);
    assert_eq!(documented, coded.map(|name| (*name).to_owned()).collect());
}
