//! Where the pods are in an object: it is one, or it has a template of them, or it is a list of such.
//!
//! Never: a guess by shape; an object of a kind that is not known here stays as it is.

// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

/// Lists in lists that are followed.
const MAX_DEPTH: usize = 4;

/// A pod, or a template of some.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Workload {
    /// JSON pointer of what has the pod's metadata and spec.
    pub(super) pointer: String,
    /// For people: kind, namespace, name.
    pub(super) name: String,
    pub(super) namespace: String,
}

/// All of one document.
pub(super) fn find(document: &Value, namespace: &str) -> Vec<Workload> {
    let mut found = Vec::new();
    look(document, "", namespace, 0, &mut found);
    found
}

fn look(object: &Value, at: &str, default: &str, depth: usize, found: &mut Vec<Workload>) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    if let Some(items) = object.get("items").and_then(Value::as_array)
        && kind.ends_with("List")
        && depth < MAX_DEPTH
    {
        for (index, item) in items.iter().enumerate() {
            look(item, &format!("{at}/items/{index}"), default, depth + 1, found);
        }
        return;
    }
    let Some(template) = template(version, kind) else { return };
    if object.pointer(template).is_none_or(|pod| !pod.is_object()) {
        return;
    }
    let own = text("/metadata/namespace");
    let namespace = if own.is_empty() { default } else { own };
    let named = text("/metadata/name");
    let named = if named.is_empty() { text("/metadata/generateName") } else { named };
    found.push(Workload {
        pointer: format!("{at}{template}"),
        name: format!("{kind} {namespace}/{named}"),
        namespace: namespace.to_owned(),
    });
}

/// Kubernetes' own kinds that make pods.
fn template(version: &str, kind: &str) -> Option<&'static str> {
    Some(match (version, kind) {
        ("v1", "Pod") => "",
        ("v1", "PodTemplate") => "/template",
        ("v1", "ReplicationController")
        | ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch/v1", "Job") => "/spec/template",
        ("batch/v1", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}
