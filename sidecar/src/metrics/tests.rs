//! The registry against its table, its caps and promtool.
//!
//! Never: a network.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use super::process::Stat;
use super::*;

fn peer(number: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td.example/ns/load/sa/peer-{number}")).unwrap()
}

/// Every family with at least one series.
fn touched() -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new());
    metrics.handshake(Direction::Inbound, "ok", "X25519MLKEM768", "aes256", false, 0.001);
    let label = metrics.peer_label(&peer(1));
    metrics.connection(Direction::Inbound).closed("done", Security::Mesh, &label, 1.0);
    metrics.verdict(Verdict::Mesh);
    metrics.renewal("ok");
    metrics.trust_update(TrustUpdate::BundleTaken);
    metrics.log_proof(Direction::Inbound, "verified");
    metrics.log_checkpoint("consistent");
    metrics.log_roots(1, 0);
    metrics.workload_renewal("ok");
    metrics.workload_streams(WorkloadCall::X509Svid, 1);
    metrics.workload_answer(WorkloadCall::X509Svid, "served");
    metrics.probe("liveness", "passed");
    metrics.svid(1_700_000_000, 1_700_086_400);
    metrics
}

fn series(rendered: &str, family: &str) -> usize {
    rendered.lines().filter(|line| line.starts_with(&format!("{family}{{"))).count()
}

#[test]
fn the_registry_shows_exactly_the_table() {
    let rendered = touched().render();
    let shown: BTreeSet<String> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(str::to_owned)
        .collect();
    let listed: BTreeSet<String> =
        table().iter().map(|row| format!("{} {}", row.name, row.kind.word())).collect();
    assert_eq!(shown, listed);
    for row in table() {
        assert!(rendered.contains(&format!("# HELP {} {}", row.name, row.help)), "{}", row.name);
        let of_family = rendered.lines().find(|line| {
            line.strip_prefix(row.name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_count"))
        });
        let line = of_family.unwrap_or_else(|| panic!("{} has no series", row.name));
        let labels: BTreeSet<&str> = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map(|(labels, _)| labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)))
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(labels, row.labels.iter().copied().collect(), "{}", row.name);
    }
}

#[test]
fn the_documented_table_equals_the_registry() {
    let document = include_str!("../../../docs/METRICS.md");
    let sidecar = document
        .split("\n## ")
        .find(|section| section.starts_with("Sidecar"))
        .expect("docs/METRICS.md has a section `Sidecar`");
    let documented: Vec<&str> = sidecar.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = table()
        .iter()
        .map(|row| {
            let labels: Vec<String> = row.labels.iter().map(|name| format!("`{name}`")).collect();
            let labels = labels.join(", ");
            format!("| `{}` | {} | {labels} | {} |", row.name, row.kind.word(), row.help)
        })
        .collect();
    assert_eq!(documented, expected, "copy the right side into docs/METRICS.md");
}

#[test]
fn fifty_thousand_peers_stay_within_the_series_caps() {
    let metrics = Arc::new(Metrics::new());
    let outcomes = ["done", "reset", "idle_timeout", "peer_lost", "drained"];
    for number in 0..50_000 {
        let label = metrics.peer_label(&peer(number));
        for direction in Direction::ALL {
            let outcome = outcomes[number % outcomes.len()];
            metrics.connection(direction).closed(outcome, Security::Mesh, &label, 0.1);
        }
    }
    // The same few peers again, with every outcome and kind of protection.
    for number in 0..MAX_PEER_LABELS {
        let label = metrics.peer_label(&peer(number));
        for outcome in outcomes {
            for security in Security::ALL {
                metrics.connection(Direction::Inbound).closed(outcome, security, &label, 0.1);
            }
        }
    }
    let rendered = metrics.render();
    let family = "myelin_connections_closed_total";
    let shared = Direction::ALL.len() * outcomes.len() * Security::ALL.len();
    assert!(series(&rendered, family) <= MAX_PEER_SERIES + shared);
    let named: BTreeSet<&str> = rendered
        .lines()
        .filter_map(|line| line.split("peer=\"").nth(1)?.split('"').next())
        .collect();
    assert_eq!(named.len(), MAX_PEER_LABELS + 1, "the peers, and `other`");
    assert!(named.contains("other"));
    let total: u64 = rendered
        .lines()
        .filter(|line| line.starts_with(family))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    let closes = 50_000 * 2 + MAX_PEER_LABELS * outcomes.len() * Security::ALL.len();
    assert_eq!(total, closes as u64, "the cap loses no count");
}

#[test]
fn the_first_peers_keep_their_label_and_later_ones_share_one() {
    let metrics = Metrics::new();
    for number in 0..MAX_PEER_LABELS {
        assert_eq!(metrics.peer_label(&peer(number)).as_str(), peer(number).as_str());
    }
    assert_eq!(metrics.peer_label(&peer(MAX_PEER_LABELS)).as_str(), "other");
    assert_eq!(metrics.peer_label(&peer(0)).as_str(), peer(0).as_str());
}

#[test]
fn a_dropped_connection_is_counted_as_abandoned() {
    let metrics = Arc::new(Metrics::new());
    let guard = metrics.connection(Direction::Inbound);
    assert_eq!(metrics.open_connections(Direction::Inbound), 1);
    drop(guard);
    assert_eq!(metrics.open_connections(Direction::Inbound), 0);
    let line = "myelin_connections_closed_total{direction=\"inbound\",outcome=\"abandoned\",\
                peer=\"none\",security=\"unknown\"} 1";
    assert!(metrics.render().contains(line), "{}", metrics.render());
}

#[test]
fn a_closed_connection_is_counted_once() {
    let metrics = Arc::new(Metrics::new());
    let none = PeerLabel::none();
    metrics.connection(Direction::Outbound).closed("refused", Security::Unknown, &none, 0.5);
    assert_eq!(metrics.open_connections(Direction::Outbound), 0);
    let rendered = metrics.render();
    assert_eq!(series(&rendered, "myelin_connections_closed_total"), 1);
    assert!(!rendered.contains("abandoned"));
}

#[test]
fn byte_handles_share_one_counter_per_direction_and_security() {
    let metrics = Metrics::new();
    metrics.bytes(Direction::Inbound, Security::Mesh).received.inc_by(5);
    metrics.bytes(Direction::Inbound, Security::Mesh).received.inc_by(2);
    metrics.bytes(Direction::Outbound, Security::Exception).sent.inc_by(1);
    let rendered = metrics.render();
    for line in [
        "{direction=\"inbound\",flow=\"received\",security=\"mesh\"} 7",
        "{direction=\"inbound\",flow=\"sent\",security=\"mesh\"} 0",
        "{direction=\"outbound\",flow=\"sent\",security=\"exception\"} 1",
    ] {
        assert!(rendered.contains(&format!("myelin_connection_bytes_total{line}")), "{line}");
    }
}

#[test]
fn words_of_one_label_are_distinct_and_stand_at_their_own_index() {
    for (index, direction) in Direction::ALL.into_iter().enumerate() {
        assert_eq!(direction as usize, index);
    }
    for (index, security) in Security::ALL.into_iter().enumerate() {
        assert_eq!(security as usize, index);
    }
    for (index, kind) in MeshUse::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
    for (index, why) in Retired::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, index);
    }
    let words: BTreeSet<&str> = Security::ALL.map(Security::word).into();
    assert_eq!(words.len(), Security::ALL.len());
    assert_eq!(BTreeSet::from(MeshUse::ALL.map(MeshUse::word)).len(), MeshUse::ALL.len());
    assert_eq!(BTreeSet::from(Retired::ALL.map(Retired::word)).len(), Retired::ALL.len());
}

#[test]
fn a_command_name_with_parentheses_does_not_shift_the_fields() {
    let text =
        "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1048576 256 1";
    let expected =
        Stat { cpu_seconds: 3.0, threads: 9, started_after_boot: 123.45, virtual_bytes: 1_048_576 };
    assert_eq!(Stat::parse(text), Some(expected));
    for broken in ["", "7 (a", "7 (a) S 1 2 3"] {
        assert_eq!(Stat::parse(broken), None, "{broken:?}");
    }
}

#[test]
fn the_process_values_are_those_of_this_process() {
    let rendered = Metrics::new().render();
    let value = |name: &str| -> f64 {
        let line = rendered.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 100_000.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_start_time_seconds") > 1_600_000_000.0);
    assert!(value("process_threads") >= 1.0);
}

#[test]
fn promtool_finds_nothing_to_say() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(why) => {
            let required = std::env::var_os("MYELIN_REQUIRE_NETNS").is_some();
            assert!(!required, "promtool is required here (Debian: prometheus): {why}");
            return;
        }
    };
    child.stdin.take().unwrap().write_all(touched().render().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_trust_update_is_counted_under_its_own_word_and_shown_before_its_first() {
    let metrics = Metrics::new();
    assert_eq!(series(&metrics.render(), "myelin_trust_updates_total"), TrustUpdate::ALL.len());
    for (index, what) in TrustUpdate::ALL.into_iter().enumerate() {
        assert_eq!(what as usize, index);
        metrics.trust_update(what);
        let line = format!("myelin_trust_updates_total{{outcome=\"{}\"}} 1", what.word());
        assert!(metrics.render().lines().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn every_verdict_is_counted_under_its_own_word_and_shown_before_its_first() {
    let metrics = Metrics::new();
    assert_eq!(series(&metrics.render(), "myelin_policy_verdicts_total"), Verdict::ALL.len());
    for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
        assert_eq!(verdict as usize, index);
        metrics.verdict(verdict);
        let line = format!(
            "myelin_policy_verdicts_total{{direction=\"{}\",verdict=\"{}\"}} 1",
            verdict.direction().word(),
            verdict.word()
        );
        assert!(metrics.render().lines().any(|shown| shown == line), "{line}");
    }
}
