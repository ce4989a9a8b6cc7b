//! The documented tables say what the code says: outcome words, renewal words, the CA's metrics and
//! its reason words. (docs/LIMITS.md is held by `tidy`, docs/CONFIG.md and the sidecar's metrics by
//! the sidecar's own tests.)
//!
//! Never: generates a document; somebody has to write down what a word means.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use myelin_ca::federation::{FetchError, RefreshError, Unfit};
use myelin_identity::verify::Refusal;
use myelin_sidecar::credentials::{ATTESTED, IssueError, RENEWED};
use myelin_sidecar::proofs::NotLogged;
use myelin_sidecar::report::{Blame, Outcome};
use myelin_sidecar::tls::HandshakeError;
use myelin_sidecar::wire::Refuse;

const RENEWALS: &str = "\n## Renewals of the own SVID";

#[test]
fn each_outcome_word_is_explained_once() {
    let text = read("docs/OUTCOMES.md");
    let (connections, _) = text.split_once(RENEWALS).expect("the section of renewals");
    let mut coded: Vec<String> = Outcome::words().into_iter().map(str::to_owned).collect();
    coded.sort();
    let mut documented: Vec<String> = rows(connections).into_iter().map(first).collect();
    documented.sort();
    assert_eq!(documented, coded);
}

#[test]
fn blame_is_documented_as_it_is_reported() {
    let text = read("docs/OUTCOMES.md");
    let (connections, _) = text.split_once(RENEWALS).expect("the section of renewals");
    let documented: BTreeMap<String, String> =
        rows(connections).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    for outcome in outcomes() {
        let blame = documented.get(outcome.word()).map(String::as_str);
        assert_eq!(blame, Some(outcome.blame().word()), "{}", outcome.word());
    }
}

#[test]
fn each_renewal_word_is_explained_once() {
    let text = read("docs/OUTCOMES.md");
    let (_, renewals) = text.split_once(RENEWALS).expect("the section of renewals");
    let coded: BTreeSet<&str> = [ATTESTED, RENEWED].into_iter().chain(IssueError::WORDS).collect();
    let documented: Vec<String> = rows(renewals).into_iter().map(first).collect();
    assert_eq!(documented.len(), coded.len());
    assert_eq!(documented.iter().map(String::as_str).collect::<BTreeSet<_>>(), coded);
}

#[test]
fn every_row_says_what_to_do() {
    for row in rows(&read("docs/OUTCOMES.md")) {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn the_table_of_the_ca_s_metrics_is_the_registry() {
    let text = read("docs/METRICS.md");
    let (_, section) = text.split_once("\n## CA").expect("the section of the CA");
    let documented: BTreeSet<Vec<String>> = rows(section).into_iter().collect();
    let described = myelin_ca::metrics::describe().expect("the registry takes its own metrics");
    let registered: BTreeSet<Vec<String>> = described
        .into_iter()
        .map(|metric| {
            vec![metric.name, metric.kind.to_owned(), metric.labels.join(", "), metric.help]
        })
        .collect();
    let sorted = documented.into_iter().map(|mut row| {
        let mut labels: Vec<&str> = row[2].split(", ").collect();
        labels.sort_unstable();
        row[2] = labels.join(", ").replace('`', "");
        row
    });
    assert_eq!(sorted.collect::<BTreeSet<_>>(), registered);
}

#[test]
fn each_reason_of_the_ca_is_explained_once() {
    let text = read("docs/CA.md");
    let (_, section) = text.split_once("\n## Reason words").expect("the section of reasons");
    let section = section.split("\n## ").next().unwrap_or(section);
    let documented: Vec<String> = rows(section).into_iter().map(first).collect();
    // The words are the arms of two functions; the verifier's own are in docs/OUTCOMES.md.
    let mut coded = BTreeSet::new();
    for source in [
        "ca/src/authority/reason.rs",
        "ca/src/attest/error.rs",
        "ca/src/log/mod.rs",
        "ca/src/signer/token/mod.rs",
    ] {
        let code = read(source);
        let bodies = code.match_indices("fn word(").map(|(at, _)| &code[at..]);
        for body in bodies {
            let body = body.split("\n    }\n").next().unwrap_or(body);
            // An arm that is too long for its line has its word on the next.
            let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
            coded.extend(
                body.replace("=> { \"", "=> \"")
                    .split("=> \"")
                    .skip(1)
                    .filter_map(|rest| rest.split('"').next())
                    .map(str::to_owned),
            );
        }
    }
    assert_eq!(documented.len(), documented.iter().collect::<BTreeSet<_>>().len(), "each once");
    assert_eq!(documented.into_iter().collect::<BTreeSet<_>>(), coded);
}

#[test]
fn each_word_of_a_refresh_is_explained_once() {
    let text = read("docs/operate/federation.md");
    let (_, section) = text.split_once("\n## Words").expect("the section of words");
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut documented: Vec<String> = rows(section).into_iter().map(first).collect();
    documented.sort();
    let store = [RefreshError::STORE];
    let coded: BTreeSet<&str> =
        FetchError::WORDS.into_iter().chain(Unfit::WORDS).chain(store).collect();
    assert_eq!(documented, coded.into_iter().map(str::to_owned).collect::<Vec<_>>());
}

/// Every ending that there is.
fn outcomes() -> Vec<Outcome> {
    use Outcome as O;
    let plain = [
        O::Completed,
        O::Unused,
        O::Drained,
        O::Abandoned,
        O::IdleTimeout,
        O::WorkloadReset,
        O::PeerReset,
        O::PeerVanished,
        O::PeerViolation,
        O::PeerSilent,
        O::Overloaded,
        O::Loop,
        O::BadDestination,
        O::DetectTimeout,
        O::Unbound,
        O::DirectoryUnavailable,
        O::UpstreamUnreachable,
        O::UpstreamTimeout,
        O::PolicyDenied,
        O::PolicyPending,
        O::Withdrawn,
        O::HandedBack,
    ];
    let all: Vec<Outcome> = plain
        .into_iter()
        .chain(
            ["identity_pending", "identity_expired", "identity_not_yet_valid"].map(O::NoIdentity),
        )
        .chain(HandshakeError::WORDS.map(O::Handshake))
        .chain(Refusal::WORDS.map(O::PeerRefused))
        .chain(NotLogged::WORDS.map(O::PeerRefused))
        .chain(Refuse::ALL.map(O::RefusedByPeer))
        .collect();
    assert_eq!(all.len(), Outcome::words().len(), "this list is behind the code's");
    assert!(all.iter().any(|outcome| outcome.blame() == Blame::Us));
    all
}

/// Every row of every table whose first cell is a word in backticks, without the backticks there.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inside = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let mut cells: Vec<String> =
            inside.split(" | ").map(|cell| cell.trim().to_owned()).collect();
        cells[0] = cells[0].strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some(cells)
    };
    // An empty cell is `|  |`, which would otherwise swallow its neighbour.
    text.lines().filter_map(|line| cells(&line.replace("|  |", "|   |"))).collect()
}

fn first(row: Vec<String>) -> String {
    row.into_iter().next().unwrap_or_default()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
