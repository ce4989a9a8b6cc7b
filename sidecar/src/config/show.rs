//! The configuration in force, as the admin socket's `/config` shows it: the file's own keys, with
//! defaults filled in. Called by `app`.
//!
//! Never: the content of a file that the configuration names.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use myelin_identity::id::TrustDomain;
use serde_json::{Value, json};

use super::{Config, Limits};
use crate::controller;
use crate::credentials::Evidence;
use crate::directory::{Place, Protocol};
use crate::policy::{self, Mode, Ports, Rule};
use crate::probes::Probe;

impl Config {
    pub fn show(&self) -> Value {
        let (token, machine) = match &self.ca.evidence {
            Evidence::None => (None, None),
            Evidence::KubernetesToken(path) => (Some(path), None),
            Evidence::Machine { certificate, key } => (None, Some((certificate, key))),
        };
        json!({
            "trust_domain": self.trust_domain.as_str(),
            "federates_with": domains(&self.federates_with),
            "federates_unlogged": domains(&self.federates_unlogged),
            "id": self.id.as_ref().map(ToString::to_string),
            "mesh_cidrs": texts(self.directory.mesh.ranges()),
            "addresses": texts(&self.addresses),
            "state_dir": self.state_dir,
            "ca": {
                "address": texts(&self.ca.addresses),
                "join_token_file": self.ca.join_token_file,
                "kubernetes_token_file": token,
                "machine_certificate_file": machine.map(|(certificate, _)| certificate),
                "machine_key_file": machine.map(|(_, key)| key),
                "bundle_file": self.ca.bundle_file,
                "lifetime": self.ca.lifetime.map(words),
            },
            "listen": {
                "outbound": self.listen.outbound.to_string(),
                "inbound": self.listen.inbound.to_string(),
                "ops": self.listen.ops.to_string(),
                "probes": self.listen.probes.to_string(),
                "admin": self.listen.admin,
                "admin_uids": self.listen.admin_uids,
                "workers": self.listen.workers,
            },
            "intercept": {
                "proxy_uid": self.intercept.proxy_uid,
                "mark": self.intercept.mark,
                "verify": self.intercept.verify,
                "exclude_outbound_ports": self.intercept.exclude_outbound_ports,
                "exclude_inbound_ports": self.intercept.exclude_inbound_ports,
                "exclude_cidrs": texts(&self.intercept.exclude_cidrs),
                "exclude_uids": self.intercept.exclude_uids,
            },
            "inbound": inbound(&self.policy),
            "outbound": self.outbound(),
            "services": self.services.as_ref().map(controllers),
            "policies": self.policies.as_ref().map(controllers),
            "workload_api": self.workload_api.as_ref().map(|socket| json!({
                "socket": socket.socket,
                "allowed_uids": socket.allowed.uids,
                "allowed_gids": socket.allowed.gids,
                "sds": socket.sds,
            })),
            "probe": self.probes.iter().map(Probe::show).collect::<Vec<_>>(),
            "limits": limits(&self.limits),
            "log": {
                "level": self.log.level.word(),
                "format": self.log.format.word(),
                "witnesses": texts(&self.proofs.witnesses.keys),
                "witness_quorum": self.proofs.witnesses.quorum,
                "servers": texts(&self.proofs.servers),
            },
        })
    }

    fn outbound(&self) -> Value {
        let directory = &self.directory;
        let exceptions = directory.exceptions.iter().map(|exception| {
            let (address, port) = place(exception.place);
            json!({ "name": *exception.name, "address": address, "port": port })
        });
        let services = directory.services.iter().map(|service| {
            json!({
                "name": *service.name,
                "address": service.address.ip().to_string(),
                "port": service.address.port(),
                "endpoints": texts(&service.endpoints),
                "ids": texts(&service.ids),
                "protocol": protocol(&service.protocol),
                "max_uses": service.max_uses,
            })
        });
        let peers = directory.peers.iter().map(|peer| {
            let (address, port) = place(peer.place);
            json!({
                "address": address,
                "port": port,
                "id": peer.id.as_str(),
                "protocol": protocol(&peer.protocol),
                "nat": peer.nat,
                "max_uses": peer.max_uses,
            })
        });
        json!({
            "exception": exceptions.collect::<Vec<_>>(),
            "service": services.collect::<Vec<_>>(),
            "peer": peers.collect::<Vec<_>>(),
        })
    }
}

fn limits(limits: &Limits) -> Value {
    json!({
        "max_connections": limits.max_connections,
        "handshake_timeout": words(limits.handshake_timeout),
        "connect_timeout": words(limits.connect_timeout),
        "idle_timeout": words(limits.idle_timeout),
        "detect_timeout": words(limits.detect_timeout),
        "drain_timeout": words(limits.drain_timeout),
        "max_use_after_expiry": words(limits.max_use_after_expiry),
        "max_uses": limits.max_uses,
        "max_connection_age": words(limits.max_connection_age),
    })
}

fn controllers(config: &controller::Config) -> Value {
    json!({ "address": texts(&config.addresses), "id": config.id.as_str() })
}

/// Also what of it is a controller's, once that is merged with the file's.
pub(crate) fn inbound(policy: &policy::Config) -> Value {
    // Sorted, so that two dumps of one configuration are equal.
    let ports: BTreeMap<u16, _> = policy.ports.iter().map(|(port, of)| (*port, of)).collect();
    let ports = ports.into_iter().map(|(port, of)| {
        let (mode, until) = mode(of.mode.unwrap_or(policy.default));
        let alpn = of.plain_mtls.as_ref().and_then(|plain| plain.alpn.as_deref());
        json!({
            "port": port,
            "mode": mode,
            "until": until,
            "server_first": of.server_first,
            "workload_tls": of.workload_tls,
            "plain_mtls": of.plain_mtls.is_some(),
            "alpn": alpn.map(String::from_utf8_lossy),
        })
    });
    let (mode, until) = mode(policy.default);
    json!({
        "mode": mode,
        "until": until,
        "port": ports.collect::<Vec<_>>(),
        "allow": policy.allow.iter().map(rule).collect::<Vec<_>>(),
        "deny": policy.deny.iter().map(rule).collect::<Vec<_>>(),
        "audit": policy.audit.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn rule(rule: &Rule) -> Value {
    let ports: BTreeSet<u16> = match &rule.ports {
        Ports::All => BTreeSet::new(),
        Ports::Only(ports) => ports.iter().copied().collect(),
    };
    let ids: BTreeSet<&str> = rule.ids.iter().map(|id| id.as_str()).collect();
    let namespaces: BTreeSet<&str> = rule.namespaces.iter().map(String::as_str).collect();
    json!({
        "name": *rule.name,
        "said_by": rule.author.word(),
        "ports": ports,
        "ids": ids,
        "namespaces": namespaces,
        "cidrs": texts(rule.cidrs.ranges()),
    })
}

/// The mode's word, and its end in seconds since the Unix epoch.
fn mode(mode: Mode) -> (&'static str, Option<u64>) {
    match mode {
        Mode::Strict => ("strict", None),
        Mode::Permissive { until } => ("permissive", Some(until)),
    }
}

fn place((address, port): Place) -> (String, Option<u16>) {
    (address.to_string(), port)
}

fn protocol(protocol: &Protocol) -> String {
    match protocol {
        Protocol::Myelin1 => "myelin/1".to_owned(),
        Protocol::PlainMtls { alpn: None } => "mtls".to_owned(),
        Protocol::PlainMtls { alpn: Some(alpn) } => {
            format!("mtls:{}", String::from_utf8_lossy(alpn))
        }
    }
}

fn domains(domains: &BTreeSet<TrustDomain>) -> Vec<&str> {
    domains.iter().map(TrustDomain::as_str).collect()
}

fn words(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
