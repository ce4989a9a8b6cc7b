//! Pods of every make, injected and looked at; each thing that is refused, with its reason; and that
//! an injected pod is left as it is. The patch is applied by somebody else's code.
//!
//! Never: a network, a clock.

// SPDX-License-Identifier: Apache-2.0

mod again;
mod kinds;
mod probes;
mod refused;
mod wishes;

use myelin_sidecar::config::Config;
use serde_json::{Value, json};

use super::*;

pub(crate) fn settings() -> Settings {
    Settings {
        trust_domain: "cluster.local".parse().unwrap(),
        mesh_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        namespace: "myelin-system".to_owned(),
        ca: vec!["10.96.0.5:15010".parse().unwrap()],
        exceptions: Vec::new(),
        image: "registry.example/myelin-sidecar:0.1.0".to_owned(),
        image_pull_policy: None,
        revision: "default".to_owned(),
        cni: false,
        resources: Resources::default(),
        privileges: Privileges::Warn,
        services: None,
        policies: None,
        bundle_pem: "-----BEGIN CERTIFICATE-----\n".into(),
    }
}

/// A namespace that is meshed.
fn shop() -> Namespace {
    let labels = [(INJECT.to_owned(), ENABLED.to_owned())].into();
    Namespace { name: "shop".to_owned(), labels }
}

/// The pod of one fixture.
fn fixture(name: &str) -> Value {
    let text = match name {
        "deployment" => include_str!("../../../fixtures/deployment.json"),
        "statefulset" => include_str!("../../../fixtures/statefulset.json"),
        "job" => include_str!("../../../fixtures/job.json"),
        "cronjob" => include_str!("../../../fixtures/cronjob.json"),
        "daemonset" => include_str!("../../../fixtures/daemonset.json"),
        "init-containers" => include_str!("../../../fixtures/init-containers.json"),
        "every-probe" => include_str!("../../../fixtures/every-probe.json"),
        "host-network" => include_str!("../../../fixtures/host-network.json"),
        "conflicting-annotations" => include_str!("../../../fixtures/conflicting-annotations.json"),
        "newer-fields" => include_str!("../../../fixtures/newer-fields.json"),
        "no-token-mounted" => include_str!("../../../fixtures/no-token-mounted.json"),
        other => panic!("no fixture {other}"),
    };
    let review: Value = serde_json::from_str(text).unwrap();
    review["request"]["object"].clone()
}

/// The injected pod and what was warned of; the patch must give just what is said to be there.
fn injected_with(pod: &Value, settings: &Settings) -> (Value, Vec<String>) {
    match inject(pod, &shop(), settings) {
        Decision::Injected { patch, warnings } => {
            let operations = Value::from(patch.operations().to_vec());
            let operations: json_patch::Patch = serde_json::from_value(operations).unwrap();
            let mut patched = pod.clone();
            json_patch::patch(&mut patched, &operations).unwrap();
            assert_eq!(&patched, patch.object());
            (patched, warnings)
        }
        other => panic!("not injected: {other:?}"),
    }
}

fn injected(pod: &Value) -> Value {
    injected_with(pod, &settings()).0
}

fn refusal_with(pod: &Value, settings: &Settings) -> String {
    match inject(pod, &shop(), settings) {
        Decision::Refused(refusal) => {
            let line = refusal.to_string();
            assert!(!line.contains('\n'), "{line}");
            assert!(Refusal::WORDS.contains(&refusal.word()));
            line
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn refusal(pod: &Value) -> String {
    refusal_with(pod, &settings())
}

/// What the sidecar of an injected pod was told, read by the sidecar's own reader.
fn told(pod: &Value) -> Config {
    let text = pod["metadata"]["annotations"]["myelin.dev/sidecar-config"].as_str().unwrap();
    myelin_sidecar::config::parse("annotation", text).unwrap()
}

/// `pod` with the member at `pointer` set; parents must be there.
fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    pod
}

fn annotated(pod: Value, name: &str, value: &str) -> Value {
    let pod = match pod["metadata"]["annotations"].is_object() {
        true => pod,
        false => with(pod, "/metadata/annotations", json!({})),
    };
    with(pod, &format!("/metadata/annotations/{}", name.replace('/', "~1")), json!(value))
}

fn labelled(pod: Value, name: &str, value: &str) -> Value {
    with(pod, &format!("/metadata/labels/{}", name.replace('/', "~1")), json!(value))
}

/// A small pod.
fn plain() -> Value {
    json!({
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "image": "shop/web:1" }] },
    })
}
