//! What is read of Services, EndpointSlices, Pods and Nodes: the few fields that decide, the rest is
//! dropped while it is parsed. Called by `catalog`, filled by `mod`.
//!
//! Never: an annotation, a container, a condition that decides nothing.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::cluster::{Meta, Read};

macro_rules! read {
    ($($kind:ident),*) => {$(
        impl Read for $kind {
            fn meta(&self) -> &Meta {
                &self.metadata
            }
        }
    )*};
}

read!(Service, Slice, Pod, Node);

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Service {
    pub(super) metadata: Meta,
    #[serde(default)]
    pub(super) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    /// `None` as a text where the Service is headless; both families of a dual one.
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Vec<String>,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServicePort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Meta,
    #[serde(default)]
    pub(super) address_type: String,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(super) ports: Vec<SlicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SlicePort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    /// The API server takes any number here, from whoever may write slices.
    pub(super) port: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<String>,
    pub(super) conditions: Conditions,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) zone: Option<String>,
}

/// Absent ones mean what the API says: ready, serving as far as ready, not terminating.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TargetRef {
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    #[serde(default)]
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) service_account_name: String,
    pub(super) host_network: bool,
    pub(super) node_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    pub(super) metadata: Meta,
}

impl Conditions {
    pub(super) fn is_ready(self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// It takes connections for as long as it takes it to go.
    pub(super) fn goes(self) -> bool {
        self.serving.unwrap_or_else(|| self.is_ready()) && self.terminating.unwrap_or(false)
    }
}

/// The one spelling of an address; `None` for what is none.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// Lists of EndpointSlices may be `null`.
fn null_is_none<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
