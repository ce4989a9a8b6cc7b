//! The annotations by which a pod's author says what its sidecar shall do otherwise. Each is read
//! strictly: a wrong one refuses the pod, and one that does not exist does too. Called by the room's
//! door.
//!
//! Never: a wish that is passed over; one of the annotations that the injector writes itself.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use ipnet::IpNet;
use myelin_sidecar::intercept::parse_cidr;
use toml::value::Datetime;

use super::Refusal;
use super::pod::Pod;
use super::settings::is_quantity;

/// What the sidecar was told, for whoever describes the pod; it reads it from here.
pub(super) const SIDECAR_CONFIG: &str = "myelin.dev/sidecar-config";
/// The roots that the sidecar begins with.
pub(super) const TRUST_BUNDLE: &str = "myelin.dev/trust-bundle";
/// The probes as their author wrote them.
pub(super) const ORIGINAL_PROBES: &str = "myelin.dev/original-probes";
/// By which revision it was injected.
pub(super) const INJECTED: &str = "myelin.dev/injected";

/// What the injector writes.
pub const OURS: [&str; 4] = [SIDECAR_CONFIG, TRUST_BUNDLE, ORIGINAL_PROBES, INJECTED];

const PREFIX: &str = "myelin.dev/";

/// What a pod may be annotated with.
pub const SETTINGS: [&str; 14] = [
    "myelin.dev/cpu-limit",
    "myelin.dev/cpu-request",
    "myelin.dev/drain-timeout",
    "myelin.dev/exclude-cidrs",
    "myelin.dev/exclude-inbound-ports",
    "myelin.dev/exclude-outbound-ports",
    "myelin.dev/exclude-uids",
    "myelin.dev/log-level",
    "myelin.dev/memory-limit",
    "myelin.dev/memory-request",
    "myelin.dev/mode",
    "myelin.dev/permissive-until",
    "myelin.dev/plain-mtls-ports",
    "myelin.dev/server-first-ports",
];

/// What a pod's annotations ask for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wishes {
    /// When permissive mode ends; `None`: strict.
    pub(super) permissive_until: Option<Datetime>,
    pub(super) server_first_ports: Vec<u16>,
    pub(super) plain_mtls_ports: Vec<u16>,
    pub(super) exclude_outbound_ports: Vec<u16>,
    pub(super) exclude_inbound_ports: Vec<u16>,
    pub(super) exclude_cidrs: Vec<IpNet>,
    pub(super) exclude_uids: Vec<u32>,
    pub(super) log_level: Option<String>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) cpu_request: Option<String>,
    pub(super) cpu_limit: Option<String>,
    pub(super) memory_request: Option<String>,
    pub(super) memory_limit: Option<String>,
}

impl Wishes {
    pub(super) fn read(pod: &Pod, warnings: &mut Vec<String>) -> Result<Self, Refusal> {
        let (mut wishes, mut permissive) = (Self::default(), None);
        let injected = pod.is_injected();
        for (name, value) in &pod.metadata.annotations {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            if OURS.contains(&name.as_str()) {
                if !injected {
                    return Err(Refusal::OwnAnnotation { name: name.clone() });
                }
                continue;
            }
            wishes.take(name, key, value.trim(), &mut permissive)?;
        }
        let (mode, until) = ("myelin.dev/mode", "myelin.dev/permissive-until");
        match (permissive, &wishes.permissive_until) {
            (Some(true), None) => {
                let fix = "write myelin.dev/permissive-until: \"2030-01-31\" beside it";
                return Err(Refusal::annotation(
                    mode,
                    "permissive",
                    "a date on which it ends",
                    fix,
                ));
            }
            (None | Some(false), Some(date)) => {
                let (seen, expected) = (date.to_string(), "no date without mode permissive");
                let fix = "remove it, or write myelin.dev/mode: permissive beside it";
                return Err(Refusal::annotation(until, &seen, expected, fix));
            }
            _ => {}
        }
        wishes.warn(warnings);
        Ok(wishes)
    }

    fn take(
        &mut self,
        name: &str,
        key: &str,
        value: &str,
        permissive: &mut Option<bool>,
    ) -> Result<(), Refusal> {
        match key {
            "mode" => {
                *permissive = Some(match value {
                    "strict" => false,
                    "permissive" => true,
                    _ => {
                        let fix = "write one of these";
                        return Err(Refusal::annotation(name, value, "strict or permissive", fix));
                    }
                });
            }
            "permissive-until" => self.permissive_until = Some(date(name, value)?),
            "server-first-ports" => self.server_first_ports = list(name, value, port)?,
            "plain-mtls-ports" => self.plain_mtls_ports = list(name, value, port)?,
            "exclude-outbound-ports" => self.exclude_outbound_ports = list(name, value, port)?,
            "exclude-inbound-ports" => self.exclude_inbound_ports = list(name, value, port)?,
            "exclude-cidrs" => self.exclude_cidrs = list(name, value, cidr)?,
            "exclude-uids" => self.exclude_uids = list(name, value, uid)?,
            "log-level" => self.log_level = Some(level(name, value)?),
            "drain-timeout" => self.drain_timeout = Some(duration(name, value)?),
            "cpu-request" => self.cpu_request = Some(quantity(name, value, "50m")?),
            "cpu-limit" => self.cpu_limit = Some(quantity(name, value, "1")?),
            "memory-request" => self.memory_request = Some(quantity(name, value, "32Mi")?),
            "memory-limit" => self.memory_limit = Some(quantity(name, value, "256Mi")?),
            _ => {
                let known = SETTINGS.join(", ");
                return Err(Refusal::UnknownAnnotation { name: name.to_owned(), known });
            }
        }
        Ok(())
    }

    /// What passes unprotected because somebody asked for it is said to whoever applies the pod.
    fn warn(&self, warnings: &mut Vec<String>) {
        let excluded = [
            ("exclude-outbound-ports", self.exclude_outbound_ports.is_empty()),
            ("exclude-inbound-ports", self.exclude_inbound_ports.is_empty()),
            ("exclude-cidrs", self.exclude_cidrs.is_empty()),
            ("exclude-uids", self.exclude_uids.is_empty()),
        ];
        for (name, _) in excluded.iter().filter(|(_, none)| !none) {
            warnings.push(format!("myelin: {name}: what it names is not protected"));
        }
        if let Some(until) = &self.permissive_until {
            warnings.push(format!("myelin: this pod takes plaintext until {until}"));
        }
    }
}

/// Commas between the entries; at least one entry.
fn list<T>(
    name: &str,
    value: &str,
    entry: impl Fn(&str, &str) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    value.split(',').map(|text| entry(name, text.trim())).collect()
}

fn port(name: &str, text: &str) -> Result<u16, Refusal> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        let expected = "ports from 1 to 65535, commas between them";
        Refusal::annotation(name, text, expected, "write for example \"8080,9090\"")
    })
}

fn cidr(name: &str, text: &str) -> Result<IpNet, Refusal> {
    parse_cidr(text).map_err(|why| {
        let expected = "ranges of addresses, commas between them";
        Refusal::annotation(name, text, expected, &why.to_string())
    })
}

fn uid(name: &str, text: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| {
        let expected = "numbers of users, commas between them";
        Refusal::annotation(name, text, expected, "write for example \"1000\"")
    })
}

fn date(name: &str, text: &str) -> Result<Datetime, Refusal> {
    let read = text.parse::<Datetime>().ok().filter(|date| date.date.is_some());
    read.ok_or_else(|| {
        let expected = "a date, or a date and time with an offset";
        Refusal::annotation(name, text, expected, "write for example \"2030-01-31T18:00:00Z\"")
    })
}

fn level(name: &str, text: &str) -> Result<String, Refusal> {
    let known = ["error", "warn", "info", "debug", "trace"];
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Refusal::annotation(name, text, &known.join(" or "), "write one of these"))
}

fn duration(name: &str, text: &str) -> Result<Duration, Refusal> {
    humantime::parse_duration(text)
        .map_err(|_| Refusal::annotation(name, text, "a duration", "write for example \"20s\""))
}

fn quantity(name: &str, text: &str, example: &str) -> Result<String, Refusal> {
    if is_quantity(text) {
        return Ok(text.to_owned());
    }
    let fix = format!("write for example {example:?}");
    Err(Refusal::annotation(name, text, "a Kubernetes quantity", &fix))
}
