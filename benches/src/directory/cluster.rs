//! What the API server knows: namespaces full of pods, Services in front of them, EndpointSlices, nodes in
//! zones; and the change that is measured. A fake of it serves them. Called by `mod`.
//!
//! Never: pods without the weight of real ones; most of what an API server sends is not read.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use myelin_fake_api::{FakeApi, Resource};
use serde_json::{Value, json};

use crate::issuance::client::ip;

/// Each namespace is one team's.
const SERVICES_EACH: usize = 20;
const NODES: usize = 200;
const ZONES: [&str; 3] = ["a", "b", "c"];
const PORT: u16 = 80;
/// Annotations, environment, volumes and conditions of an ordinary injected pod.
const BALLAST_BYTES: usize = 6 * 1024;

pub(super) struct Cluster {
    pub(super) api: FakeApi,
    pods: usize,
    services: usize,
}

impl Cluster {
    pub(super) async fn new(pods: usize, services: usize) -> Result<Self> {
        let cluster = Self { api: FakeApi::start().await?, pods, services };
        for nth in 0..NODES {
            cluster.api.put(&Resource::core("nodes"), node(nth));
        }
        for nth in 0..pods {
            cluster.api.put(&Resource::core("pods"), cluster.pod(nth));
        }
        for nth in 0..services {
            cluster.api.put(&Resource::core("services"), service(nth));
            cluster.put_slice(nth, true);
        }
        Ok(cluster)
    }

    pub(super) fn services(&self) -> usize {
        self.services
    }

    /// One endpoint of a service is ready, or is not.
    pub(super) fn put_slice(&self, nth: usize, all_ready: bool) {
        let each = self.pods / self.services;
        let endpoints: Vec<Value> = (nth * each..(nth + 1) * each)
            .map(|pod| endpoint(pod, all_ready || pod > nth * each))
            .collect();
        let slice = json!({
            "metadata": {
                "name": format!("service-{nth}-x7k2p"), "namespace": namespace(nth),
                "labels": {
                    "kubernetes.io/service-name": format!("service-{nth}"),
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        });
        self.api.put(&Resource::new("discovery.k8s.io", "v1", "endpointslices"), slice);
    }

    fn pod(&self, nth: usize) -> Value {
        let service = (nth * self.services / self.pods).min(self.services - 1);
        json!({
            "metadata": {
                "name": name(nth), "namespace": namespace(service),
                "labels": { "app": format!("service-{service}") },
                "annotations": { "example.com/ballast": "x".repeat(BALLAST_BYTES) },
            },
            "spec": {
                "serviceAccountName": format!("service-{service}"),
                "nodeName": format!("node-{}", nth % NODES),
                "containers": [{ "name": "app", "image": "registry.example/app:1" }],
            },
            "status": { "phase": "Running", "podIPs": [{ "ip": ip(nth).to_string() }] },
        })
    }
}

/// Where a service is dialled.
pub(super) fn place(nth: usize) -> SocketAddr {
    let [_, _, high, low] = (u32::try_from(nth).unwrap_or_default()).to_be_bytes();
    SocketAddr::new(IpAddr::from([10, 96, high, low]), PORT)
}

fn namespace(service: usize) -> String {
    format!("team-{}", service / SERVICES_EACH)
}

fn name(pod: usize) -> String {
    format!("pod-{pod}-5d8f7c9b6-x7k2p")
}

fn node(nth: usize) -> Value {
    let zone = ZONES[nth % ZONES.len()];
    json!({ "metadata": {
        "name": format!("node-{nth}"), "labels": { "topology.kubernetes.io/zone": zone },
    } })
}

fn service(nth: usize) -> Value {
    let address = place(nth).ip().to_string();
    json!({
        "metadata": { "name": format!("service-{nth}"), "namespace": namespace(nth) },
        "spec": {
            "clusterIP": address, "clusterIPs": [address],
            "ports": [{ "name": "http", "port": PORT, "protocol": "TCP", "targetPort": 8080 }],
        },
    })
}

fn endpoint(pod: usize, ready: bool) -> Value {
    json!({
        "addresses": [ip(pod).to_string()],
        "conditions": { "ready": ready, "serving": ready, "terminating": false },
        "nodeName": format!("node-{}", pod % NODES),
        "zone": ZONES[pod % NODES % ZONES.len()],
        "targetRef": { "kind": "Pod", "name": name(pod) },
    })
}
