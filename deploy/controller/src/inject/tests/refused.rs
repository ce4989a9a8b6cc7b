//! What is refused, each with its reason, beside a twin that is not.
//!
//! Never: a refusal that leaves open what to do.

// SPDX-License-Identifier: Apache-2.0

use super::*;

fn container(field: &str, value: Value) -> Value {
    with(plain(), &format!("/spec/containers/0/{field}"), value)
}

#[test]
fn names_of_the_injectors_are_not_the_workloads() {
    let named = |pointer: &str, value| with(plain(), pointer, value);
    for (pod, expected) in [
        (named("/spec/containers/0/name", json!("myelin-sidecar")), "container myelin-sidecar has"),
        (
            named("/spec/initContainers", json!([{ "name": "myelin-init" }])),
            "init container myelin",
        ),
        (named("/spec/volumes", json!([{ "name": "myelin-identity" }])), "volume myelin-identity"),
        (container("volumeMounts", json!([{ "name": "myelin-state" }])), "mounts volume myelin-st"),
        (annotated(plain(), "myelin.dev/sidecar-config", "x"), "is written by the injector"),
        (annotated(plain(), "myelin.dev/original-probes", "{}"), "is written by the injector"),
    ] {
        let line = refusal(&pod);
        assert!(line.contains(expected), "{line}");
    }
    injected(&named("/spec/containers/0/name", json!("myelin-sidecars")));
    injected(&container("volumeMounts", json!([{ "name": "myelin" }])));
}

#[test]
fn nobody_mounts_the_sidecars_identity_even_in_a_pod_that_was_here_before() {
    let mut pod = injected(&plain());
    let stolen = json!([{ "name": "myelin-identity", "mountPath": "/stolen" }]);
    pod["spec"]["containers"][0]["volumeMounts"] = stolen;
    assert!(refusal(&pod).contains("holds the sidecar's own identity"), "{}", refusal(&pod));
}

#[test]
fn ports_of_the_sidecars_are_not_the_workloads() {
    for port in [15001, 15006, 15020, 15021] {
        let line = refusal(&container("ports", json!([{ "containerPort": port }])));
        assert!(line.contains(&format!("uses port {port}, which is the sidecar's")), "{line}");
    }
    injected(&container("ports", json!([{ "containerPort": 15002 }])));
    injected(&container("ports", json!([{ "containerPort": 15006, "protocol": "UDP" }])));
}

#[test]
fn the_sidecars_user_is_refused_whatever_the_policy() {
    let as_user = |uid| json!({ "runAsUser": uid });
    for pod in [
        container("securityContext", as_user(1337)),
        with(plain(), "/spec/securityContext", as_user(1337)),
        with(
            plain(),
            "/spec/initContainers",
            json!([{ "name": "i", "securityContext": as_user(1337) }]),
        ),
    ] {
        assert!(refusal(&pod).contains("runs as user 1337"), "{}", refusal(&pod));
    }
    injected(&container("securityContext", as_user(1336)));
    // Each container says otherwise, so the pod's own word is nobody's.
    let other = with(plain(), "/spec/securityContext", as_user(1337));
    injected(&with(other, "/spec/containers/0/securityContext", as_user(1000)));
}

#[test]
fn privileges_are_warned_of_or_refused_as_the_operator_says() {
    let adds = |name: &str| {
        container("securityContext", json!({ "capabilities": { "add": [name], "drop": ["ALL"] } }))
    };
    let refuse = Settings { privileges: Privileges::Refuse, ..settings() };
    for (pod, expected) in [
        (adds("NET_ADMIN"), "adds NET_ADMIN"),
        (adds("NET_RAW"), "adds NET_RAW"),
        (adds("CAP_NET_RAW"), "adds NET_RAW"),
        (adds("net_raw"), "adds NET_RAW"),
        (adds("SETUID"), "adds SETUID"),
        (adds("ALL"), "adds ALL"),
        (container("securityContext", json!({ "privileged": true })), "is privileged"),
        (with(plain(), "/spec/shareProcessNamespace", json!(true)), "shareProcessNamespace"),
        (with(plain(), "/spec/hostPID", json!(true)), "hostPID"),
    ] {
        let (_, warnings) = injected_with(&pod, &settings());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(expected), "{warnings:?}");
        let line = refusal_with(&pod, &refuse);
        assert!(line.contains(expected) && line.contains("webhook.privileges"), "{line}");
    }
    for pod in [adds("NET_BIND_SERVICE"), plain(), fixture("deployment")] {
        assert!(injected_with(&pod, &refuse).1.is_empty());
    }
    // The rules' own init container is not the workload's.
    assert!(injected_with(&injected(&plain()), &refuse).1.is_empty());
}

#[test]
fn what_is_no_pod_is_refused() {
    for object in [
        Value::Null,
        json!({}),
        json!([]),
        json!({ "spec": { "containers": [] } }),
        json!({ "spec": { "containers": "web" } }),
        json!({ "spec": { "containers": [{ "name": 5 }] } }),
        with(plain(), "/metadata/labels", json!({ "a": 1 })),
        with(plain(), "/spec/hostNetwork", json!("yes")),
    ] {
        assert!(refusal(&object).contains("cannot be read as a pod"), "{object}");
    }
    // Null is absent, as it is to Kubernetes.
    let nulls =
        with(with(plain(), "/spec/volumes", Value::Null), "/metadata/annotations", Value::Null);
    injected(&nulls);
}

#[test]
fn a_configuration_that_the_sidecar_would_refuse_refuses_the_pod() {
    let whole = Settings { mesh_cidrs: vec!["0.0.0.0/0".parse().unwrap()], ..settings() };
    let line = refusal_with(&plain(), &whole);
    assert!(line.contains("less than the whole internet"), "{line}");
    let account = with(plain(), "/spec/serviceAccountName", json!("not a name"));
    assert!(refusal(&account).contains("would not take its configuration"));
}
