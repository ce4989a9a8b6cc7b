//! What the mesh's operator has decided for all pods. Made by `config`; the trust bundle is filled in
//! by whoever holds the newest one.
//!
//! Never: a default that weakens security.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use myelin_identity::id::{SpiffeId, TrustDomain};

#[derive(Clone, Debug)]
pub struct Settings {
    pub trust_domain: TrustDomain,
    pub mesh_cidrs: Vec<IpNet>,
    /// The namespace of the mesh itself, where nothing is injected.
    pub namespace: String,
    /// The CA's replicas, as sidecars are told.
    pub ca: Vec<SocketAddr>,
    /// What is inside the ranges and not meshed, for every pod.
    pub exceptions: Vec<Exception>,
    pub image: String,
    pub image_pull_policy: Option<String>,
    pub revision: String,
    /// A chained CNI plugin writes the rules, so no pod needs NET_ADMIN for them.
    pub cni: bool,
    pub resources: Resources,
    pub privileges: Privileges,
    /// Whom sidecars ask about services; absent: nobody.
    pub services: Option<Controllers>,
    /// Whom they ask who may enter; absent: nobody.
    pub policies: Option<Controllers>,
    /// The roots that a sidecar begins with, in PEM.
    pub bundle_pem: Arc<str>,
}

/// The controllers, as the sidecar's own file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controllers {
    pub address: Vec<SocketAddr>,
    pub id: SpiffeId,
}

/// A named exception, as the sidecar's own file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    pub name: String,
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// Kubernetes quantities; absent: none is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub cpu_request: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_request: Option<String>,
    pub memory_limit: Option<String>,
}

/// What becomes of a workload that could get around the interception or look into the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    Warn,
    Refuse,
}

impl Default for Resources {
    /// Measured idle: 10 MiB; 8 KiB for each connection. No bound on CPU: throttled handshakes are
    /// slow ones, and a sidecar cannot use more than its workload's traffic asks of it.
    fn default() -> Self {
        let some = |text: &str| Some(text.to_owned());
        Self {
            cpu_request: some("10m"),
            cpu_limit: None,
            memory_request: some("32Mi"),
            memory_limit: some("256Mi"),
        }
    }
}

/// A quantity as Kubernetes reads it, of the forms that people write for CPU and memory.
pub fn is_quantity(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let known = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    known.contains(&suffix)
        && number.len() <= 18
        && number.matches('.').count() <= 1
        && number.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
        && !number.starts_with('.')
        && !number.ends_with('.')
}
