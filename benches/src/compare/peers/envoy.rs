//! Envoy as a plain TCP proxy with mutual TLS 1.3, captured by the same rules as Myelin, under the
//! same user and mark. Called by `peers`.
//!
//! Never: a control plane, an access log, or an HTTP filter.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::stage::{BULK, REQUESTS, START_LIMIT, Side, Stage, address};
use super::certificates::{Files, dns, id};
use super::{Launch, Pair, Programs};

pub(super) const ABOUT: &str = "tcp_proxy, transparent by the same nf_tables rules, user and mark \
    as Myelin; peer's SPIFFE ID matched; TLS session resumption on (its default); no access log";

const OUTBOUND: u16 = 15_001;
const INBOUND: u16 = 15_006;

/// What `myelin-sidecar intercept apply` exempts beside the user.
const MARK: u32 = 0x6d79;
const SOL_SOCKET: u32 = 1;
const SO_MARK: u32 = 36;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(super) async fn set_up(stage: &Stage, programs: &Programs) -> Result<Pair> {
    let files = Files::write(stage)?;
    for pod in [&stage.client, &stage.server] {
        let rules = pod
            .command(&programs.sidecar)
            .args(["intercept", "apply", "--proxy-uid", &stage.ground.proxy_uid().to_string()])
            .spawn()?;
        rules.wait_success(START_LIMIT).await.context("cannot write the interception rules")?;
    }
    let envoy = programs.envoy()?;
    let texts = [(Side::Server, server(&files)), (Side::Client, client(&files))];
    let mut launches = Vec::new();
    let mut written = Vec::new();
    for (number, (side, configuration)) in texts.into_iter().enumerate() {
        let text = serde_json::to_string_pretty(&configuration)?;
        let name = format!("{}.json", side.name());
        let file = stage.write(&name, &text, false)?;
        let base_id = number.to_string();
        let args = ["-c", &*file.to_string_lossy(), "--concurrency", "1", "--base-id", &base_id]
            .into_iter()
            .chain(["-l", "warning", "--disable-hot-restart"])
            .map(str::to_owned)
            .collect();
        launches.push(Launch { side, program: envoy.clone(), args, is_captured: true });
        written.push((name, text));
    }
    let pair = Pair::transparent(launches);
    Ok(written.iter().fold(pair, |pair, (name, text)| pair.note(stage, name, text)))
}

/// One filter chain for each port of the server, each to its own cluster.
fn client(files: &Files) -> Value {
    let ports = [("requests", REQUESTS), ("bulk", BULK)];
    let chains = ports.map(|(name, port)| {
        json!({ "filter_chain_match": { "destination_port": port }, "filters": [tcp_proxy(name)] })
    });
    let clusters = ports.map(|(name, port)| {
        let endpoint = json!({ "endpoint": { "address": socket(address(2), port) } });
        let assignment =
            json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] });
        let tls = json!({
            "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": tls(files, Side::Client, Side::Server),
            "sni": dns(Side::Server),
        });
        let mut cluster = cluster(name);
        cluster["type"] = json!("STATIC");
        cluster["load_assignment"] = assignment;
        cluster["transport_socket"] = transport(&tls);
        cluster
    });
    configuration(OUTBOUND, &json!(chains), &json!(clusters))
}

/// Whatever comes in goes to its original destination.
fn server(files: &Files) -> Value {
    let tls = json!({
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": tls(files, Side::Server, Side::Client),
    });
    let chains = json!([{ "transport_socket": transport(&tls), "filters": [tcp_proxy("in")] }]);
    let mut inside = cluster("in");
    inside["type"] = json!("ORIGINAL_DST");
    inside["lb_policy"] = json!("CLUSTER_PROVIDED");
    configuration(INBOUND, &chains, &json!([inside]))
}

fn configuration(port: u16, chains: &Value, clusters: &Value) -> Value {
    let original = json!({
        "name": "envoy.filters.listener.original_dst",
        "typed_config": {
            "@type": format!("{TYPES}.filters.listener.original_dst.v3.OriginalDst"),
        },
    });
    json!({ "static_resources": {
        "listeners": [{
            "name": "captured",
            "address": socket(Ipv4Addr::UNSPECIFIED.into(), port),
            "listener_filters": [original],
            "filter_chains": chains,
        }],
        "clusters": clusters,
    } })
}

fn socket(address: IpAddr, port: u16) -> Value {
    json!({ "socket_address": { "address": address.to_string(), "port_value": port } })
}

fn tcp_proxy(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "tcp",
            "cluster": cluster,
        },
    })
}

/// With the mark that the rules exempt, and without the default limit of 1,024 connections.
fn cluster(name: &str) -> Value {
    let mark = json!({
        "level": SOL_SOCKET, "name": SO_MARK, "int_value": MARK, "state": "STATE_PREBIND",
    });
    json!({
        "name": name,
        "connect_timeout": "5s",
        "upstream_bind_config": { "socket_options": [mark] },
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }] },
    })
}

fn tls(files: &Files, own: Side, peer: Side) -> Value {
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [{
            "certificate_chain": { "filename": files.chain(own) },
            "private_key": { "filename": files.key(own) },
        }],
        "validation_context": {
            "trusted_ca": { "filename": files.root },
            "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "exact": id(peer) } },
            ],
        },
    })
}

fn transport(tls: &Value) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls })
}
