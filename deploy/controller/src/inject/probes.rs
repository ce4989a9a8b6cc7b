//! The probes that the kubelet asks over the network, which a strict port would refuse: found, read,
//! and pointed at the sidecar, which runs just the same in the kubelet's place. Called by the room's
//! door.
//!
//! Never: changes how often, how long or how patiently is asked; touches a probe that runs a
//! command, or one of another host.

// SPDX-License-Identifier: Apache-2.0

use myelin_sidecar::intercept::defaults;
use myelin_sidecar::probes::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Refusal;
use super::annotations::ORIGINAL_PROBES;
use super::patch::Patch;
use super::pod::{Container, Pod};

/// One probe that goes through the sidecar.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) container: String,
    pub(super) kind: Field,
    /// As its author wrote it.
    pub(super) original: Value,
    pub(super) timeout_seconds: u64,
    pub(super) action: Action,
    /// JSON pointer of the probe.
    at: String,
}

#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Http { port: u16, path: String, https: bool, headers: Vec<(String, String)> },
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

/// A kind of probe, with the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field(pub(super) Kind);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: Value,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct TcpSocket {
    port: Value,
    #[serde(default)]
    host: String,
}

#[derive(Deserialize)]
struct Grpc {
    port: Value,
    #[serde(default)]
    service: Option<String>,
}

impl Field {
    pub(super) fn field(self) -> &'static str {
        match self.0 {
            Kind::Liveness => "livenessProbe",
            Kind::Readiness => "readinessProbe",
            Kind::Startup => "startupProbe",
        }
    }
}

/// Every probe that the sidecar is to run. Those of a pod that was here before are read from where
/// their originals are kept.
pub(super) fn find(pod: &Pod, warnings: &mut Vec<String>) -> Result<Vec<Found>, Refusal> {
    let kept: Value = match pod.metadata.annotations.get(ORIGINAL_PROBES) {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).map_err(|why| {
            let (expected, fix) = ("the probes as the injector keeps them", why.to_string());
            Refusal::annotation(ORIGINAL_PROBES, text, expected, &fix)
        })?,
    };
    let mut found = Vec::new();
    for (at, container) in pod.workload() {
        for kind in Kind::ALL.map(Field) {
            let probe = match kind.0 {
                Kind::Liveness => &container.liveness_probe,
                Kind::Readiness => &container.readiness_probe,
                Kind::Startup => &container.startup_probe,
            };
            let Some(probe) = probe else { continue };
            let original = if is_ours(probe, &container.name, kind) {
                let kept = &kept[&container.name][kind.field()];
                if kept.is_null() {
                    let why = format!(
                        "asks the sidecar, and annotation {ORIGINAL_PROBES} does not say what for"
                    );
                    return Err(refusal(container, kind, why));
                }
                kept
            } else {
                probe
            };
            let Some(action) = action(original, container, kind, warnings)? else { continue };
            found.push(Found {
                container: container.name.clone(),
                kind,
                original: original.clone(),
                timeout_seconds: original["timeoutSeconds"].as_u64().unwrap_or(1).max(1),
                action,
                at: format!("{at}/{}", kind.field()),
            });
        }
        for (hook, called) in [
            (&container.lifecycle.post_start, "postStart"),
            (&container.lifecycle.pre_stop, "preStop"),
        ] {
            if hook.http_get.is_some() {
                let name = &container.name;
                warnings.push(format!(
                    "myelin: {called}.httpGet of {name} comes in plaintext: a strict port refuses it"
                ));
            }
        }
    }
    Ok(found)
}

impl Found {
    /// Points the probe at the sidecar; what else it says stays.
    pub(super) fn rewrite(&self, patch: &mut Patch) {
        let (path, port) = (path(&self.container, self.kind), defaults::PROBE_PORT);
        patch.unset(&format!("{}/tcpSocket", self.at));
        patch.unset(&format!("{}/grpc", self.at));
        let ours = json!({ "path": path, "port": port, "scheme": "HTTP" });
        patch.set(&format!("{}/httpGet", self.at), ours);
    }
}

fn path(container: &str, kind: Field) -> String {
    format!("/probe/{container}/{}", kind.0.word())
}

fn is_ours(probe: &Value, container: &str, kind: Field) -> bool {
    let get = &probe["httpGet"];
    get["port"] == json!(defaults::PROBE_PORT) && get["path"] == json!(path(container, kind))
}

/// What the probe asks; `None`: nothing that the sidecar should run.
fn action(
    probe: &Value,
    container: &Container,
    kind: Field,
    warnings: &mut Vec<String>,
) -> Result<Option<Action>, Refusal> {
    let unread =
        |why: serde_json::Error| refusal(container, kind, format!("cannot be read: {why}"));
    let resolve = |named: &Value| {
        let why = || {
            format!(
                "asks port {named}, which is neither a number from 1 to 65535 nor a port's name in its container"
            )
        };
        port(named, container).ok_or_else(|| refusal(container, kind, why()))
    };
    let mut elsewhere = |host: &str| {
        let (name, kind) = (&container.name, kind.0.word());
        let is = !host.is_empty();
        if is {
            warnings.push(format!("myelin: the {kind} probe of {name} asks host {host}, not the pod: it stays as it is"));
        }
        is
    };
    if let Some(get) = probe.get("httpGet").filter(|get| !get.is_null()) {
        let get = HttpGet::deserialize(get).map_err(unread)?;
        if elsewhere(&get.host) {
            return Ok(None);
        }
        let headers = get.http_headers.into_iter().map(|header| (header.name, header.value));
        return Ok(Some(Action::Http {
            port: resolve(&get.port)?,
            path: target(&get.path),
            https: get.scheme.eq_ignore_ascii_case("https"),
            headers: headers.collect(),
        }));
    }
    if let Some(socket) = probe.get("tcpSocket").filter(|socket| !socket.is_null()) {
        let socket = TcpSocket::deserialize(socket).map_err(unread)?;
        if elsewhere(&socket.host) {
            return Ok(None);
        }
        return Ok(Some(Action::Tcp { port: resolve(&socket.port)? }));
    }
    if let Some(grpc) = probe.get("grpc").filter(|grpc| !grpc.is_null()) {
        let grpc = Grpc::deserialize(grpc).map_err(unread)?;
        let service = grpc.service.unwrap_or_default();
        return Ok(Some(Action::Grpc { port: resolve(&grpc.port)?, service }));
    }
    Ok(None)
}

/// As the kubelet does: a number, a port's name in the same container, or a number in quotes.
fn port(named: &Value, container: &Container) -> Option<u16> {
    let number = match named {
        Value::Number(number) => number.as_i64()?,
        Value::String(name) => {
            let by_name = container.ports.iter().find(|port| port.name == *name);
            match by_name {
                Some(port) => port.container_port,
                None => name.parse().ok()?,
            }
        }
        _ => return None,
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// The path as it goes over the wire: what Go's URL parser makes of it, for what people write.
fn target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::from(if path.starts_with('/') { "" } else { "/" });
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~'
                if !matches!(
                    byte,
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
                ) =>
            {
                target.push(char::from(byte));
            }
            _ => target.push_str(&format!("%{byte:02X}")),
        }
    }
    target
}

fn refusal(container: &Container, kind: Field, why: String) -> Refusal {
    Refusal::Probe { container: container.name.clone(), kind: kind.0.word(), why }
}
