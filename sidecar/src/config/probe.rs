//! `[[probe]]`: what the kubelet asks of the workload, run by the sidecar in its place. Written by the
//! injection webhook; read here like any other section. Called by `config::parse`.
//!
//! Never: a probe of another host or of the sidecar itself, or one without an end.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;

use super::Listen;
use super::base::word;
use super::error::ConfigError;
use super::field::Field;
use super::section::Section;
use crate::probes::{Action, HttpProbe, Kind, MAX_HEADERS, MAX_PROBES, MAX_TIMEOUT, Probe};

/// The kubelet counts in seconds.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A service's name is a path of a protocol; Kubernetes has no bound for it.
const MAX_SERVICE_BYTES: usize = 253;

pub(super) const KEYS: &[&str] =
    &["container", "kind", "timeout", "action", "port", "path", "scheme", "headers", "service"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Http,
    Tcp,
    Grpc,
}

pub(super) fn read(root: &Section<'_>, listen: &Listen) -> Result<Vec<Probe>, ConfigError> {
    let mut seen = HashSet::new();
    let mut probes = Vec::new();
    for section in root.children("probe", KEYS, MAX_PROBES)? {
        let container = section.required("container", "a container's name", "\"web\"")?;
        let field = section.required("kind", "which probe of the container", "\"liveness\"")?;
        let kind = word(&field, &Kind::ALL.map(|kind| (kind.word(), kind)))?;
        let probe = Probe {
            container: container.name()?,
            kind,
            timeout: match section.field("timeout") {
                Some(field) => field.duration(MIN_TIMEOUT..=MAX_TIMEOUT, "of one probe")?,
                None => MIN_TIMEOUT,
            },
            action: action(&section, listen)?,
        };
        if !seen.insert((probe.container.clone(), kind)) {
            return Err(field.wrong("each kind once for each container", "remove one of both"));
        }
        probes.push(probe);
    }
    Ok(probes)
}

fn action(section: &Section<'_>, listen: &Listen) -> Result<Action, ConfigError> {
    let field = section.required("action", "how it asks: http, tcp or grpc", "\"http\"")?;
    let words = [("http", Asked::Http), ("tcp", Asked::Tcp), ("grpc", Asked::Grpc)];
    let asked = word(&field, &words)?;
    let field = section.required("port", "the workload's port", "8080")?;
    let port = field.port()?;
    if listen.takes(port) {
        // It would ask the sidecar about itself, and the probe port about the very same probe.
        let fix = "name a port that the workload listens on";
        return Err(field.wrong("no port of the sidecar itself", fix));
    }
    let only =
        |keys: &[&str], of: Asked, name: &str| match keys.iter().find_map(|key| section.field(key))
        {
            Some(field) if asked != of => {
                let expected = format!("nothing here, since action is not \"{name}\"");
                Err(field.wrong(expected, "remove it"))
            }
            _ => Ok(()),
        };
    only(&["path", "scheme", "headers"], Asked::Http, "http")?;
    only(&["service"], Asked::Grpc, "grpc")?;
    match asked {
        Asked::Http => http(section, port).map(Action::Http),
        Asked::Tcp => Ok(Action::Tcp { port }),
        Asked::Grpc => {
            let service = section.field("service");
            let expected = "a service's name of at most 253 bytes";
            let service = service.map(|field| {
                field.text(expected, "shop.v1.Orders", |text| {
                    (text.len() <= MAX_SERVICE_BYTES).then(|| text.to_owned())
                })
            });
            Ok(Action::Grpc { port, service: service.transpose()?.unwrap_or_default() })
        }
    }
}

fn http(section: &Section<'_>, port: u16) -> Result<HttpProbe, ConfigError> {
    let https = match section.field("scheme") {
        Some(field) => word(&field, &[("http", false), ("https", true)])?,
        None => false,
    };
    let target = match section.field("path") {
        Some(field) => field.text("a path that begins with /", "/healthz", target)?,
        None => PathAndQuery::from_static("/"),
    };
    let headers = match section.field("headers") {
        Some(field) => field.list(MAX_HEADERS)?.iter().map(header).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    Ok(HttpProbe { port, https, target, headers })
}

fn target(text: &str) -> Option<PathAndQuery> {
    text.starts_with('/').then(|| text.parse().ok()).flatten()
}

fn header(field: &Field<'_>) -> Result<(HeaderName, HeaderValue), ConfigError> {
    field.text("a header as it is sent", "X-Probe: yes", |text| {
        let (name, value) = text.split_once(':')?;
        Some((name.parse().ok()?, value.trim().parse().ok()?))
    })
}
