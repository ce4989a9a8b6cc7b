//! Probes of every kind: where they ask afterwards, what the sidecar was told to run, and that what
//! its author wrote can be read.
//!
//! Never: a probe that runs; the sidecar's own suites do that.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_sidecar::probes::{Action, Kind, Probe};

use super::*;

fn ours(container: &str, kind: &str) -> Value {
    let path = format!("/probe/{container}/{kind}");
    json!({ "path": path, "port": 15021, "scheme": "HTTP" })
}

fn probing(probe: Value) -> Value {
    let ports = json!([{ "name": "http", "containerPort": 8080 }]);
    with(
        with(plain(), "/spec/containers/0/ports", ports),
        "/spec/containers/0/livenessProbe",
        probe,
    )
}

#[test]
fn probes_of_every_kind_ask_the_sidecar_and_their_originals_are_kept() {
    let before = fixture("every-probe");
    let after = injected(&before);
    let [a, b, c] = [0, 1, 2].map(|index| &after["spec"]["containers"][index]);
    for (probe, kind) in [
        ("startupProbe", "startup"),
        ("livenessProbe", "liveness"),
        ("readinessProbe", "readiness"),
    ] {
        assert_eq!(a[probe]["httpGet"], ours("a", kind));
        assert!(a[probe]["grpc"].is_null(), "{probe}");
    }
    assert_eq!(a["startupProbe"]["timeoutSeconds"], 7);
    assert_eq!(a["startupProbe"]["failureThreshold"], 30, "patience is the author's");
    assert_eq!(b["startupProbe"]["httpGet"], ours("b", "startup"));
    assert!(b["startupProbe"]["tcpSocket"].is_null());
    let original = &before["spec"]["containers"];
    assert_eq!(b["livenessProbe"], original[1]["livenessProbe"], "a command runs as ever");
    assert_eq!(b["readinessProbe"], original[1]["readinessProbe"], "another host is not the pod");
    assert_eq!(c, &original[2]);
    let kept = after["metadata"]["annotations"]["myelin.dev/original-probes"].as_str().unwrap();
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(
        kept,
        json!({
            "a": {
                "startupProbe": original[0]["startupProbe"],
                "livenessProbe": original[0]["livenessProbe"],
                "readinessProbe": original[0]["readinessProbe"],
            },
            "b": { "startupProbe": original[1]["startupProbe"] },
        })
    );
}

#[test]
fn the_sidecar_is_told_exactly_the_original() {
    let probes = told(&injected(&fixture("every-probe"))).probes;
    let find = |container: &str, kind| -> &Probe {
        let is = |probe: &&Probe| probe.container == container && probe.kind == kind;
        probes.iter().find(is).unwrap()
    };
    let startup = find("a", Kind::Startup);
    assert_eq!(startup.timeout, Duration::from_secs(7));
    let Action::Http(http) = &startup.action else { panic!("{startup:?}") };
    assert_eq!((http.port, http.https, http.target.as_str()), (8443, true, "/"));
    let headers: Vec<_> = http.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(headers[0], ("host", &"shop.example".parse().unwrap()));
    assert_eq!(headers[1], ("x-probe", &"yes".parse().unwrap()));
    let grpc = |service: &str| Action::Grpc { port: 9090, service: service.to_owned() };
    assert_eq!(find("a", Kind::Liveness).action, grpc(""));
    assert_eq!(find("a", Kind::Readiness).action, grpc("shop.v1.Orders"));
    let tcp = find("b", Kind::Startup);
    assert_eq!((&tcp.action, tcp.timeout), (&Action::Tcp { port: 7000 }, Duration::from_secs(1)));
    assert_eq!(probes.len(), 4);
}

#[test]
fn ports_and_paths_are_read_as_the_kubelet_reads_them() {
    for (get, port, target) in [
        (json!({ "port": 8080 }), 8080, "/"),
        (json!({ "port": "http" }), 8080, "/"),
        (json!({ "port": "9090" }), 9090, "/"),
        (json!({ "port": 80, "path": "healthz" }), 80, "/healthz"),
        (json!({ "port": 80, "path": "/a?b=c&d" }), 80, "/a?b=c&d"),
        (json!({ "port": 80, "path": "/a%20b" }), 80, "/a%20b"),
        (json!({ "port": 80, "path": "/a b" }), 80, "/a%20b"),
        (json!({ "port": 80, "path": "/a#b" }), 80, "/a"),
        (json!({ "port": 80, "path": "/\u{e9}" }), 80, "/%C3%A9"),
    ] {
        let config = told(&injected(&probing(json!({ "httpGet": get }))));
        let Action::Http(http) = &config.probes[0].action else { panic!("{config:?}") };
        assert_eq!((http.port, http.target.as_str()), (port, target), "{get}");
    }
}

#[test]
fn probe_that_could_never_pass_is_refused() {
    for (probe, expected) in [
        (json!({ "httpGet": { "port": "https" } }), "asks port \"https\", which is neither"),
        (json!({ "tcpSocket": { "port": 0 } }), "asks port 0, which is neither"),
        (json!({ "tcpSocket": { "port": 65536 } }), "asks port 65536, which is neither"),
        (json!({ "grpc": { "port": -1 } }), "asks port -1, which is neither"),
        (json!({ "httpGet": { "path": "/" } }), "cannot be read: missing field `port`"),
        // The probe port itself would ask itself for ever.
        (json!({ "httpGet": { "port": 15021, "path": "/x" } }), "no port of the sidecar itself"),
        (json!({ "tcpSocket": { "port": 15006 } }), "no port of the sidecar itself"),
        (json!({ "grpc": { "port": 15020 } }), "no port of the sidecar itself"),
        (
            json!({ "httpGet": { "port": 80, "httpHeaders": [{ "name": "a b", "value": "c" }] } }),
            "headers[0]",
        ),
        (json!({ "httpGet": { "port": 80 }, "timeoutSeconds": 86_400 }), "timeout"),
    ] {
        let line = refusal(&probing(probe.clone()));
        assert!(line.contains(expected), "{probe}: {line}");
    }
}

#[test]
fn hooks_of_the_kubelets_over_http_are_warned_of() {
    let hook = json!({ "preStop": { "httpGet": { "port": 8080, "path": "/quit" } } });
    let pod = with(plain(), "/spec/containers/0/lifecycle", hook);
    let (_, warnings) = injected_with(&pod, &settings());
    assert!(warnings[0].contains("preStop.httpGet of web"), "{warnings:?}");
    let command = json!({ "preStop": { "exec": { "command": ["sleep", "5"] } } });
    let (_, warnings) =
        injected_with(&with(plain(), "/spec/containers/0/lifecycle", command), &settings());
    assert!(warnings.is_empty(), "{warnings:?}");
}
