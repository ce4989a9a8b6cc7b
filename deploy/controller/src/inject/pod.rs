//! As much of a pod as is looked at. Everything else stays in the JSON, unread. Called by the other
//! files of this room.
//!
//! Never: written back; a field that is of another kind than Kubernetes documents is a refusal.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Refusal;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(deserialize_with = "or_default")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub(super) init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub(super) volumes: Vec<Named>,
    #[serde(deserialize_with = "or_default")]
    pub(super) host_network: bool,
    #[serde(rename = "hostPID", deserialize_with = "or_default")]
    pub(super) host_pid: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) share_process_namespace: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) service_account_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) security_context: SecurityContext,
    #[serde(deserialize_with = "or_default")]
    pub(super) os: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<Port>,
    #[serde(deserialize_with = "or_default")]
    pub(super) volume_mounts: Vec<Named>,
    #[serde(deserialize_with = "or_default")]
    pub(super) security_context: SecurityContext,
    #[serde(deserialize_with = "or_default")]
    pub(super) lifecycle: Lifecycle,
    pub(super) liveness_probe: Option<Value>,
    pub(super) readiness_probe: Option<Value>,
    pub(super) startup_probe: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    pub(super) container_port: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<i64>,
    pub(super) privileged: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    pub(super) capabilities: Capabilities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    #[serde(deserialize_with = "or_default")]
    pub(super) add: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Lifecycle {
    #[serde(deserialize_with = "or_default")]
    pub(super) post_start: Hook,
    #[serde(deserialize_with = "or_default")]
    pub(super) pre_stop: Hook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) http_get: Option<Value>,
}

impl Pod {
    pub(super) fn read(object: &Value) -> Result<Self, Refusal> {
        let pod =
            Self::deserialize(object).map_err(|why| Refusal::NoPod { why: why.to_string() })?;
        if pod.spec.containers.is_empty() {
            return Err(Refusal::NoPod { why: "spec.containers is empty".to_owned() });
        }
        Ok(pod)
    }

    /// All containers with the JSON pointer of each, the sidecar's own aside.
    pub(super) fn workload(&self) -> impl Iterator<Item = (String, &Container)> {
        let of = |list: &'static str| {
            move |(index, container)| (format!("/spec/{list}/{index}"), container)
        };
        let init = self.spec.init_containers.iter().enumerate().map(of("initContainers"));
        let main = self.spec.containers.iter().enumerate().map(of("containers"));
        init.filter(|(_, container)| !super::containers::is_ours(&container.name)).chain(main)
    }

    /// Was it here before? Then what is ours in it may be written anew.
    pub(super) fn is_injected(&self) -> bool {
        let sidecar = super::containers::SIDECAR;
        self.metadata.annotations.contains_key(super::annotations::SIDECAR_CONFIG)
            && self.spec.init_containers.iter().any(|container| container.name == sidecar)
    }
}

/// Absent and null are the same to Kubernetes.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
