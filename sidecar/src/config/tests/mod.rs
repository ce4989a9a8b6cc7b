//! The file's keys: what they become, what is refused, and that the documentation lists them all.
//!
//! Never: a file outside a temporary directory.

// SPDX-License-Identifier: Apache-2.0

mod files;
mod wrong;

use std::collections::BTreeSet;

use super::*;
use crate::directory::Protocol;
use crate::policy::{Demand, Mode, Policy, Ports};
use crate::probes::{Action, Kind};

const MINIMAL: &str = r#"
trust_domain = "td.example"
mesh_cidrs = ["10.0.0.0/8"]
[ca]
address = "10.0.0.2:15010"
"#;

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let config = parse("minimal", MINIMAL).unwrap();
    assert_eq!(config.state_dir.to_str(), Some("/var/lib/myelin"));
    assert_eq!(config.listen.outbound.to_string(), "[::]:15001");
    assert_eq!(config.listen.inbound.to_string(), "[::]:15006");
    assert_eq!(config.listen.ops.to_string(), "[::]:15020");
    assert_eq!(config.listen.probes.to_string(), "[::]:15021");
    assert!(config.probes.is_empty() && config.interception().probe_port.is_none());
    assert_eq!(config.listen.admin.to_str(), Some("/run/myelin/admin.sock"));
    assert!(config.listen.admin_uids.is_empty() && config.listen.workers.is_none());
    let Intercept { proxy_uid, mark, verify, .. } = config.intercept;
    assert_eq!((proxy_uid, mark, verify), (1337, 0x6d79, true));
    assert!(config.intercept.exclude_inbound_ports.is_empty());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log, Log { level: LogLevel::Info, format: LogFormat::Human });
    assert_eq!(config.policy.default, Mode::Strict);
    assert!(config.workload_api.is_none(), "off unless configured");
    assert!(config.services.is_none() && config.policies.is_none(), "off unless configured");
    assert!(config.id.is_none() && config.addresses.is_empty() && config.ca.lifetime.is_none());
    assert_eq!(Policy::new(config.policy).demand(80, 0), Demand::Mtls);
}

#[test]
fn every_key_reaches_its_room() {
    let config = parse("full.toml", include_str!("../../../examples/full.toml")).unwrap();
    assert_eq!(config.interception().probe_port, Some(15_021));
    assert_eq!(config.id.unwrap().as_str(), "spiffe://example.org/ns/shop/sa/web");
    assert_eq!(config.addresses.len(), 2);
    assert_eq!(config.ca.addresses.len(), 2);
    assert_eq!(config.ca.lifetime, Some(Duration::from_secs(12 * 3_600)));
    assert_eq!(config.listen.admin_uids, [1000]);
    assert_eq!(config.listen.workers.unwrap().get(), 2);
    assert_eq!(config.intercept.exclude_outbound_ports, [53]);
    assert_eq!(config.intercept.exclude_inbound_ports, [22]);
    assert_eq!(config.intercept.exclude_cidrs.len(), 2);
    assert_eq!(config.intercept.exclude_uids, [100]);
    assert_eq!(config.policy.default, Mode::Permissive { until: 1_893_456_000 });
    let smtp = &config.policy.ports[&25];
    assert_eq!(smtp.mode, Some(Mode::Permissive { until: 1_893_431_700 }));
    assert!(smtp.server_first && !smtp.workload_tls);
    assert!(config.policy.ports[&8443].workload_tls);
    let metrics = config.policy.ports[&9102].plain_mtls.as_ref().unwrap();
    assert_eq!(metrics.alpn.as_deref(), Some(b"h2".as_slice()));
    assert_eq!(config.policy.ports[&9102].mode, Some(Mode::Strict));
    assert_eq!(config.policy.ports[&8443].mode, None, "that of ports without an entry");
    assert_eq!(config.policy.allow[0].ports, Ports::Only([8080, 9090].into()));
    assert_eq!(config.policy.deny[0].ports, Ports::All);
    assert_eq!(config.policy.deny[0].cidrs.ranges().len(), 2);
    assert_eq!(&*config.policy.audit[0].name, "from-the-edge");
    let [dns, storage] = &config.directory.exceptions[..] else { panic!("two exceptions") };
    assert_eq!((&*dns.name, dns.place.1, storage.place.1), ("dns", Some(53), None));
    let [service] = &config.directory.services[..] else { panic!("one service") };
    assert_eq!(service.address.to_string(), "10.96.0.80:80");
    assert_eq!((service.endpoints.len(), service.ids.len()), (2, 1));
    let [translated, gateway] = &config.directory.peers[..] else { panic!("two peers") };
    assert!(translated.nat && !gateway.nat);
    assert_eq!(translated.max_uses.map(std::num::NonZeroU32::get), Some(1));
    assert!(gateway.max_uses.is_none());
    assert_eq!(gateway.protocol, Protocol::PlainMtls { alpn: Some(b"h2".to_vec()) });
    let asked = config.services.unwrap();
    assert_eq!(asked.addresses.len(), 2);
    assert_eq!(asked.id.service_account(), Some("myelin-controller"));
    assert_eq!(config.policies.unwrap().addresses.len(), 1);
    let socket = config.workload_api.unwrap();
    assert_eq!(socket.socket.to_str(), Some("/run/myelin/workload/api.sock"));
    assert!(socket.allowed.uids.contains(&1000) && socket.allowed.gids.contains(&2000));
    assert!(socket.sds);
    let [http, tcp, grpc] = &config.probes[..] else { panic!("three probes") };
    let Action::Http(asked) = &http.action else { panic!("{http:?}") };
    assert_eq!((asked.port, asked.https, asked.target.as_str()), (8443, true, "/ready?deep=1"));
    assert_eq!(asked.headers[0].1, "yes");
    assert_eq!((http.kind, http.timeout), (Kind::Readiness, Duration::from_secs(3)));
    assert_eq!((tcp.kind, &tcp.action), (Kind::Liveness, &Action::Tcp { port: 8443 }));
    let service = "shop.v1.Orders".to_owned();
    assert_eq!(grpc.action, Action::Grpc { port: 9090, service });
    assert_eq!(config.limits.max_uses, 1);
    assert_eq!(config.limits.max_connection_age, Duration::from_secs(300));
    assert_eq!(config.limits.drain_timeout, Duration::ZERO);
    assert_eq!(config.log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!((config.proofs.witnesses.keys.len(), config.proofs.witnesses.quorum), (1, 1));
    assert_eq!(config.proofs.servers.len(), 2);
}

#[test]
fn all_witnesses_that_are_named_must_cosign_unless_a_quorum_is() {
    let example = include_str!("../../../examples/full.toml");
    let line = |text: &str| {
        let quorum = example.lines().find(|line| line.starts_with("witness_quorum")).unwrap();
        parse("t", &example.replace(quorum, text)).map(|config| config.proofs.witnesses.quorum)
    };
    assert_eq!(line("").unwrap(), 1);
    assert_eq!(line("witness_quorum = 0").unwrap(), 0);
    assert!(line("witness_quorum = 2").is_err(), "more than there are");
    let own = parse("t", MINIMAL).unwrap();
    assert_eq!(own.proofs.witnesses.quorum, 0);
    assert_eq!(own.proofs.servers[0].port(), 15_011);
}

#[test]
fn foreign_ids_are_read_where_their_domain_is_named() {
    let file = |federates: &str, id: &str| {
        let text = format!(
            "{federates}\n{MINIMAL}[[inbound.allow]]\nname = \"p\"\nids = [\"{id}\"]\n\
             [[outbound.peer]]\naddress = \"10.9.9.9\"\nid = \"{id}\"\n"
        );
        parse("t", &text)
    };
    let (named, theirs) = ("federates_with = [\"b.example\"]", "spiffe://b.example/ns/shop/sa/web");
    let config = file(named, theirs).unwrap();
    assert_eq!(config.directory.peers[0].id.as_str(), theirs);
    let policy = Policy::new(config.policy);
    assert!(
        policy.authorize(&config.directory.peers[0].id, "10.9.9.9".parse().unwrap(), 80).is_ok()
    );
    for (federates, id) in [
        ("", theirs),
        (named, "spiffe://c.example/ns/shop/sa/web"),
        (named, "spiffe://a.b.example/ns/shop/sa/web"),
        (named, "spiffe://b.example/myelin/ca"),
    ] {
        assert!(file(federates, id).is_err(), "{federates} {id}");
    }
    // The own identity stays in the own domain.
    let own = parse("t", &format!("{named}\nid = \"{theirs}\"\n{MINIMAL}"));
    assert!(own.is_err());
}

#[test]
fn short_lifetimes_need_their_flag() {
    let with = |rest: &str| parse("t", &format!("{MINIMAL}{rest}"));
    let short = with("lifetime = \"12s\"\nallow_short_lifetimes = true");
    assert_eq!(short.unwrap().ca.lifetime, Some(Duration::from_secs(12)));
    assert!(with("lifetime = \"12s\"").is_err());
    assert!(with("lifetime = \"12s\"\nallow_short_lifetimes = false").is_err());
    assert!(with("lifetime = \"4s\"\nallow_short_lifetimes = true").is_err());
}

#[test]
fn dates_become_seconds_since_the_epoch() {
    let until = |date: &str| {
        let text = format!("{MINIMAL}[inbound]\nmode = \"permissive\"\nuntil = {date}");
        match parse("t", &text).map(|config| config.policy.default) {
            Ok(Mode::Permissive { until }) => Some(until),
            _ => None,
        }
    };
    for (date, expected) in [
        ("1970-01-01", Some(0)),
        ("2000-02-29", Some(951_782_400)),
        ("2000-03-01", Some(951_868_800)),
        ("2026-03-31T18:00:00Z", Some(1_774_980_000)),
        ("2026-03-31T20:00:00+02:00", Some(1_774_980_000)),
        ("2026-03-31T18:00:00", None),
        ("18:00:00", None),
        ("1969-12-31", None),
        ("\"2026-03-31\"", None),
    ] {
        assert_eq!(until(date), expected, "{date}");
    }
}

#[test]
fn what_is_shown_can_be_read_and_holds_no_file_content() {
    let full = parse("full.toml", include_str!("../../../examples/full.toml")).unwrap();
    let shown = full.show();
    assert_eq!(shown["ca"]["join_token_file"], "/etc/myelin/join-token");
    assert_eq!(shown["limits"]["idle_timeout"], "15m");
    assert_eq!(shown["inbound"]["allow"][0]["ports"], serde_json::json!([8080, 9090]));
    assert_eq!(shown["outbound"]["peer"][1]["protocol"], "mtls:h2");
    let keys: BTreeSet<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, KEYS.iter().copied().collect(), "every section is shown");
}

/// Each section's path in the documentation, and its keys.
const SECTIONS: &[(&str, &[&str])] = &[
    ("", KEYS),
    ("ca.", base::CA_KEYS),
    ("listen.", base::LISTEN_KEYS),
    ("intercept.", base::INTERCEPT_KEYS),
    ("inbound.", inbound::KEYS),
    ("inbound.port.", inbound::PORT_KEYS),
    ("inbound.allow.", inbound::RULE_KEYS),
    ("inbound.deny.", inbound::RULE_KEYS),
    ("inbound.audit.", inbound::RULE_KEYS),
    ("outbound.", outbound::KEYS),
    ("outbound.exception.", outbound::EXCEPTION_KEYS),
    ("outbound.service.", outbound::SERVICE_KEYS),
    ("outbound.peer.", outbound::PEER_KEYS),
    ("services.", controllers::KEYS),
    ("policies.", controllers::KEYS),
    ("workload_api.", workload_api::KEYS),
    ("probe.", probe::KEYS),
    ("limits.", limits::KEYS),
    ("log.", base::LOG_KEYS),
];

#[test]
fn the_documentation_lists_every_key_and_no_other() {
    let document = include_str!("../../../../docs/CONFIG.md");
    let documented: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let tables: BTreeSet<&str> =
        SECTIONS.iter().map(|(path, _)| path.trim_end_matches('.')).collect();
    let keys =
        SECTIONS.iter().flat_map(|(path, keys)| keys.iter().map(move |key| format!("{path}{key}")));
    let expected: BTreeSet<String> = keys.filter(|key| !tables.contains(&**key)).collect();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(documented, expected);
}

#[test]
fn the_documented_example_is_accepted() {
    let document = include_str!("../../../../docs/CONFIG.md");
    let example = document.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    parse("docs/CONFIG.md", example).unwrap();
    parse("minimal.toml", include_str!("../../../examples/minimal.toml")).unwrap();
}

#[test]
fn suggestions_are_near_or_absent() {
    let known = ["address", "lifetime", "bundle_file"];
    for (seen, expected) in [
        ("adress", Some("address")),
        ("Lifetime", Some("lifetime")),
        ("bundle-file", Some("bundle_file")),
        ("zebra", None),
        ("", None),
    ] {
        assert_eq!(section::nearest(seen, &known), expected, "{seen}");
    }
}
