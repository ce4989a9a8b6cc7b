//! The sidecar's configuration for one pod, as the TOML of docs/CONFIG.md, read back with the
//! sidecar's own reader before anybody gets it. Called by the room's door.
//!
//! Never: a configuration that the sidecar would refuse, or rules that cannot be applied.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::id::SpiffeId;
use myelin_sidecar::intercept::Plan;
use serde::Serialize;
use toml::value::Datetime;

use super::annotations::{SIDECAR_CONFIG, Wishes};
use super::containers::{IDENTITY_DIR, STATE_DIR};
use super::pod::Pod;
use super::probes::{Action, Found};
use super::{Namespace, Refusal, Settings};

/// A sidecar in a pod is told to end when the workload has ended; what is left then are the last
/// words of connections, not requests.
const DRAIN: Duration = Duration::from_secs(5);

/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

#[derive(Serialize)]
struct File {
    trust_domain: String,
    id: String,
    mesh_cidrs: Vec<String>,
    state_dir: String,
    ca: Ca,
    listen: Listen,
    intercept: Intercept,
    inbound: Inbound,
    #[serde(skip_serializing_if = "Outbound::is_empty")]
    outbound: Outbound,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Controllers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Controllers>,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probe: Vec<Probe>,
}

#[derive(Serialize)]
struct Ca {
    address: Vec<String>,
    kubernetes_token_file: String,
    bundle_file: String,
}

#[derive(Serialize)]
struct Listen {
    admin: String,
}

#[derive(Serialize)]
struct Intercept {
    mark: u32,
    verify: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude_outbound_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude_inbound_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude_cidrs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude_uids: Vec<u32>,
}

#[derive(Serialize)]
struct Inbound {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Datetime>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    port: Vec<Port>,
}

#[derive(Serialize)]
struct Port {
    port: u16,
    server_first: bool,
    plain_mtls: bool,
}

#[derive(Serialize)]
struct Outbound {
    exception: Vec<Exception>,
}

impl Outbound {
    fn is_empty(&self) -> bool {
        self.exception.is_empty()
    }
}

#[derive(Serialize)]
struct Controllers {
    address: Vec<String>,
    id: String,
}

#[derive(Serialize)]
struct Exception {
    name: String,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct Limits {
    drain_timeout: String,
}

#[derive(Serialize)]
struct Log {
    level: String,
}

#[derive(Serialize)]
struct Probe {
    container: String,
    kind: &'static str,
    timeout: String,
    action: &'static str,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
}

pub(super) fn sidecar_toml(
    pod: &Pod,
    namespace: &Namespace,
    settings: &Settings,
    wishes: &Wishes,
    probes: &[Found],
) -> Result<String, Refusal> {
    let wrong = |why: String| Refusal::Configuration { why };
    let account = match pod.spec.service_account_name.as_str() {
        "" => DEFAULT_ACCOUNT,
        named => named,
    };
    let id = SpiffeId::workload(&settings.trust_domain, &namespace.name, account)
        .map_err(|why| wrong(why.to_string()))?;
    let file = File {
        trust_domain: settings.trust_domain.to_string(),
        id: id.to_string(),
        mesh_cidrs: texts(&settings.mesh_cidrs),
        // What an emptyDir gives is anybody's to write in; what is made below it is the sidecar's.
        state_dir: format!("{STATE_DIR}/state"),
        ca: Ca {
            address: texts(&settings.ca),
            kubernetes_token_file: format!("{IDENTITY_DIR}/token"),
            bundle_file: format!("{IDENTITY_DIR}/bundle.pem"),
        },
        listen: Listen { admin: format!("{STATE_DIR}/run/admin.sock") },
        intercept: Intercept {
            // Both ask for NET_ADMIN, which a sidecar in a pod does not have.
            mark: 0,
            verify: false,
            exclude_outbound_ports: wishes.exclude_outbound_ports.clone(),
            exclude_inbound_ports: wishes.exclude_inbound_ports.clone(),
            exclude_cidrs: texts(&wishes.exclude_cidrs),
            exclude_uids: wishes.exclude_uids.clone(),
        },
        inbound: inbound(wishes),
        outbound: Outbound { exception: settings.exceptions.iter().map(exception).collect() },
        services: settings.services.as_ref().map(controllers),
        policies: settings.policies.as_ref().map(controllers),
        limits: Limits { drain_timeout: words(wishes.drain_timeout.unwrap_or(DRAIN)) },
        log: wishes.log_level.clone().map(|level| Log { level }),
        probe: probes.iter().map(probe).collect(),
    };
    let text = toml::to_string(&file).map_err(|why| wrong(why.to_string()))?;
    let config = myelin_sidecar::config::parse(SIDECAR_CONFIG, &text)
        .map_err(|why| wrong(why.to_string()))?;
    Plan::new(config.interception()).map_err(|why| wrong(why.to_string()))?;
    Ok(text)
}

fn inbound(wishes: &Wishes) -> Inbound {
    let (server_first, plain) = (&wishes.server_first_ports, &wishes.plain_mtls_ports);
    let mut ports: Vec<u16> = server_first.iter().chain(plain).copied().collect();
    ports.sort_unstable();
    ports.dedup();
    let port = |port| Port {
        port,
        server_first: server_first.contains(&port),
        plain_mtls: plain.contains(&port),
    };
    Inbound {
        mode: if wishes.permissive_until.is_some() { "permissive" } else { "strict" },
        until: wishes.permissive_until,
        port: ports.into_iter().map(port).collect(),
    }
}

fn controllers(controllers: &super::Controllers) -> Controllers {
    Controllers { address: texts(&controllers.address), id: controllers.id.to_string() }
}

fn exception(exception: &super::Exception) -> Exception {
    let (name, address) = (exception.name.clone(), exception.address.to_string());
    Exception { name, address, port: exception.port }
}

fn probe(found: &Found) -> Probe {
    let none = Probe {
        container: found.container.clone(),
        kind: found.kind.0.word(),
        timeout: words(Duration::from_secs(found.timeout_seconds)),
        action: "tcp",
        port: 0,
        path: None,
        scheme: None,
        headers: Vec::new(),
        service: None,
    };
    match &found.action {
        Action::Tcp { port } => Probe { port: *port, ..none },
        Action::Grpc { port, service } => {
            Probe { action: "grpc", port: *port, service: Some(service.clone()), ..none }
        }
        Action::Http { port, path, https, headers } => Probe {
            action: "http",
            port: *port,
            path: Some(path.clone()),
            scheme: https.then_some("https"),
            headers: headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
            ..none
        },
    }
}

fn words(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
