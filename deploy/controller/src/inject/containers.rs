//! What is added to a pod: the rules' init container, the sidecar, their volumes. Each is written
//! with every security setting named, so that a pod's own defaults do not seep in. Called by the
//! room's door.
//!
//! Never: a privilege beyond NET_ADMIN for the rules' init container, a token of the API server's
//! for either, a field that a newer Kubernetes would have to know.

// SPDX-License-Identifier: Apache-2.0

use myelin_sidecar::intercept::defaults;
use serde_json::{Map, Value, json};

use super::annotations::{SIDECAR_CONFIG, TRUST_BUNDLE, Wishes};
use super::probes::Found;
use super::settings::{Resources, Settings};

/// Where in a list something stands that is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    At(usize),
    Last,
}

pub(super) const SIDECAR: &str = "myelin-sidecar";
/// Applies the rules, before anything of the workload's runs.
pub(super) const RULES: &str = "myelin-init";

const IDENTITY: &str = "myelin-identity";
const STATE: &str = "myelin-state";
/// Lies where Kubernetes would mount a token for its API otherwise.
const NOTHING: &str = "myelin-nothing";

pub(super) const IDENTITY_DIR: &str = "/etc/myelin";
pub(super) const STATE_DIR: &str = "/var/lib/myelin";
const API_TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A token is renewed by the kubelet at four fifths of this.
const TOKEN_SECONDS: u32 = 3600;

/// The startup probe's patience: the CA may be starting as well, and until the sidecar is ready
/// nothing of the workload runs.
const STARTUP_SECONDS: u32 = 600;

pub(super) fn is_ours(container: &str) -> bool {
    container == SIDECAR || container == RULES
}

pub(super) fn is_own_volume(volume: &str) -> bool {
    [IDENTITY, STATE, NOTHING].contains(&volume)
}

pub(super) fn volumes(settings: &Settings) -> [Value; 3] {
    let audience = format!("myelin-ca/{}", settings.trust_domain);
    let file = |path: &str, annotation: &str| {
        let field = format!("metadata.annotations['{annotation}']");
        json!({ "path": path, "fieldRef": { "apiVersion": "v1", "fieldPath": field } })
    };
    [
        json!({ "name": IDENTITY, "projected": { "defaultMode": 0o444, "sources": [
            { "downwardAPI": { "items": [
                file("sidecar.toml", SIDECAR_CONFIG),
                file("bundle.pem", TRUST_BUNDLE),
            ] } },
            { "serviceAccountToken": {
                "audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": "token",
            } },
        ] } }),
        json!({ "name": STATE, "emptyDir": { "medium": "Memory", "sizeLimit": "32Mi" } }),
        json!({ "name": NOTHING, "emptyDir": { "medium": "Memory", "sizeLimit": "4Ki" } }),
    ]
}

/// In their order: they come before every init container of the workload's.
pub(super) fn containers(settings: &Settings, wishes: &Wishes, probes: &[Found]) -> Vec<Value> {
    let rules = (!settings.cni).then(|| rules(settings, wishes, probes));
    rules.into_iter().chain([sidecar(settings, wishes)]).collect()
}

fn sidecar(settings: &Settings, wishes: &Wishes) -> Value {
    let get = |path: &str| json!({ "path": path, "port": defaults::OPS_PORT, "scheme": "HTTP" });
    let uid = defaults::PROXY_UID;
    let mut container = json!({
        "name": SIDECAR,
        "image": settings.image,
        "args": ["run", "--config", format!("{IDENTITY_DIR}/sidecar.toml")],
        "restartPolicy": "Always",
        "ports": [{ "name": "myelin-ops", "containerPort": defaults::OPS_PORT, "protocol": "TCP" }],
        "resources": resources(settings, wishes),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": uid,
            "runAsNonRoot": true,
            "runAsUser": uid,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "startupProbe": {
            "httpGet": get("/ready"), "periodSeconds": 1, "timeoutSeconds": 1,
            "successThreshold": 1, "failureThreshold": STARTUP_SECONDS,
        },
        "livenessProbe": {
            "httpGet": get("/live"), "periodSeconds": 10, "timeoutSeconds": 3,
            "successThreshold": 1, "failureThreshold": 3,
        },
        "volumeMounts": [
            { "name": IDENTITY, "mountPath": IDENTITY_DIR, "readOnly": true },
            { "name": STATE, "mountPath": STATE_DIR },
            { "name": NOTHING, "mountPath": API_TOKEN_DIR, "readOnly": true },
        ],
    });
    pull(&mut container, settings);
    container
}

/// `intercept apply` with exactly what the sidecar's own file says.
fn rules(settings: &Settings, wishes: &Wishes, probes: &[Found]) -> Value {
    let mut container = json!({
        "name": RULES,
        "image": settings.image,
        "args": arguments(wishes, probes),
        "resources": resources(settings, &Wishes::default()),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [
            { "name": NOTHING, "mountPath": API_TOKEN_DIR, "readOnly": true },
        ],
    });
    pull(&mut container, settings);
    container
}

fn arguments(wishes: &Wishes, probes: &[Found]) -> Vec<String> {
    let mut arguments = vec!["intercept".to_owned(), "apply".to_owned()];
    let mut add = |flag: &str, value: String| arguments.extend([format!("--{flag}"), value]);
    add("proxy-uid", defaults::PROXY_UID.to_string());
    // A process without NET_ADMIN sets no mark.
    add("mark", "0".to_owned());
    if !probes.is_empty() {
        add("probe-port", defaults::PROBE_PORT.to_string());
    }
    let lists = [
        ("exclude-outbound-port", joined(&wishes.exclude_outbound_ports)),
        ("exclude-inbound-port", joined(&wishes.exclude_inbound_ports)),
        ("exclude-cidr", joined(&wishes.exclude_cidrs)),
        ("exclude-uid", joined(&wishes.exclude_uids)),
    ];
    for (flag, list) in lists {
        if !list.is_empty() {
            add(flag, list);
        }
    }
    arguments
}

fn joined<T: ToString>(entries: &[T]) -> String {
    entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn resources(settings: &Settings, wishes: &Wishes) -> Value {
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = &settings.resources;
    let either = |wish: &Option<String>, set: &Option<String>| wish.clone().or_else(|| set.clone());
    let mut lists = Map::new();
    for (list, cpu, memory) in [
        (
            "requests",
            either(&wishes.cpu_request, cpu_request),
            either(&wishes.memory_request, memory_request),
        ),
        (
            "limits",
            either(&wishes.cpu_limit, cpu_limit),
            either(&wishes.memory_limit, memory_limit),
        ),
    ] {
        let of = [("cpu", cpu), ("memory", memory)];
        let of = of.into_iter().filter_map(|(name, set)| Some((name.to_owned(), json!(set?))));
        let of: Map<String, Value> = of.collect();
        if !of.is_empty() {
            lists.insert(list.to_owned(), Value::Object(of));
        }
    }
    Value::Object(lists)
}

fn pull(container: &mut Value, settings: &Settings) {
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
}
