//! Imports go only downward: a table of rooms and floors for each crate that has one, and the walls
//! between the crates. ARCHITECTURE.md shows the same tables to readers.
//!
//! Never: judges test code, which may stand on whatever it likes.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use crate::assert_none;
use crate::source::{Source, read, rust_files};

type Floors = &'static [(u8, &'static [&'static str])];

const SIDECAR: Floors = &[
    (9, &["main", "args"]),
    (8, &["app"]),
    (7, &["config"]),
    (6, &["inbound", "outbound", "auditor", "workload_api"]),
    (5, &["services", "policies"]),
    (4, &["controller"]),
    (3, &["credentials", "report", "probes"]),
    (2, &["tls", "policy", "directory", "net", "admin", "intercept", "proofs"]),
    (1, &["relay", "drain", "metrics", "unix_socket"]),
    (0, &["addr", "wire", "detect"]),
];

const CA: Floors = &[
    (8, &["main"]),
    (7, &["app"]),
    (6, &["api"]),
    (5, &["config", "operator"]),
    (4, &["authority"]),
    (3, &["rotation", "offline_root", "federation"]),
    (2, &["signer", "check", "attest", "log"]),
    (1, &["template", "journal", "https"]),
    (0, &["clock", "random", "replica", "store", "datadir", "metrics", "lockdown", "scheduling"]),
];

const IDENTITY: Floors = &[
    (3, &["issuance", "verify"]),
    (2, &["svid", "bundle", "services", "policy"]),
    (1, &["id", "log"]),
    (0, &["x509", "pem", "seal", "wire"]),
];

const CNI: Floors = &[
    (4, &["main"]),
    (3, &["install", "repair"]),
    (2, &["plugin"]),
    (1, &["cluster", "netns"]),
    (0, &["args", "spec"]),
];

const CONTROLLER: Floors = &[
    (7, &["main", "args"]),
    (6, &["app", "offline"]),
    (5, &["config"]),
    (4, &["webhook", "services", "config_map", "preflight"]),
    (3, &["bundle", "ca_address", "certificate", "policies"]),
    (2, &["metrics", "manifests"]),
    (1, &["inject"]),
    (0, &["cluster", "door"]),
];

const HOUSES: [(&str, Floors); 5] = [
    ("sidecar/src", SIDECAR),
    ("ca/src", CA),
    ("ca/identity/src", IDENTITY),
    ("deploy/cni/src", CNI),
    ("deploy/controller/src", CONTROLLER),
];

/// Who must not depend on whom, in any section of its manifest, and why.
const WALLS: [(&str, &[&str], &str); 7] = [
    ("deploy/cni", &["myelin-ca"], "who writes rules issues nothing"),
    ("sidecar", &["myelin-ca", "redb"], "the sidecar links no issuing code"),
    ("ca", &["myelin-sidecar", "netlink-sys"], "the CA links no data plane"),
    (
        "ca/identity",
        &["myelin-ca", "myelin-sidecar", "tokio", "hyper", "tonic", "socket2", "nix"],
        "what both agree on has no I/O and no async",
    ),
    (
        "deploy/lab",
        &["myelin-ca", "myelin-sidecar"],
        "the ground knows nothing of what stands on it",
    ),
    ("deploy/controller", &["myelin-ca"], "the controller holds no signing key"),
    (
        "deploy/cli",
        &["myelin-ca", "myelin-sidecar"],
        "the operator's tool drives binaries, not code",
    ),
];

#[test]
fn imports_go_only_downward() {
    let sources = rust_files();
    let mut wrong = Vec::new();
    for (house, floors) in HOUSES {
        let inside = sources.iter().filter(|file| file.path.starts_with(&format!("{house}/")));
        for file in inside {
            let room = room_of(house, file);
            if matches!(room, "lib" | "testing") {
                continue;
            }
            let Some(floor) = floor_of(floors, room) else {
                wrong.push(format!("{}: room `{room}` has no floor", file.path));
                continue;
            };
            for imported in imports(&file.shipped(), depth_of(house, file)) {
                if let Some(theirs) = floor_of(floors, &imported).filter(|_| imported != room)
                    && theirs >= floor
                {
                    wrong.push(format!(
                        "{}: `{room}` (floor {floor}) imports `{imported}` (floor {theirs})",
                        file.path
                    ));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn walls_between_crates_stand() {
    let mut wrong = Vec::new();
    for (folder, forbidden, why) in WALLS {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        for line in manifest.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if forbidden.contains(&name) {
                wrong.push(format!("{folder}/Cargo.toml depends on {name}: {why}"));
            }
        }
    }
    assert_none(&wrong);
}

fn room_of<'a>(house: &str, file: &'a Source) -> &'a str {
    let inside = file.path[house.len() + 1..].split('/').next().unwrap_or_default();
    inside.trim_end_matches(".rs")
}

fn floor_of(floors: Floors, room: &str) -> Option<u8> {
    floors.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// How many `super::` lead from this file to its crate's root.
fn depth_of(house: &str, file: &Source) -> usize {
    let parts: Vec<&str> = file.path[house.len() + 1..].split('/').collect();
    parts.len() - usize::from(parts.last() == Some(&"mod.rs"))
}

/// The rooms that this code names by a path from the crate's root.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let from_below = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for (start, root) in ["crate::", from_below.as_str()]
        .into_iter()
        .flat_map(|root| code.match_indices(root).map(move |(at, _)| (at, root)))
    {
        let behind = code[..start].chars().next_back();
        if behind.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
            continue;
        }
        let rest = &code[start + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(first_names(group));
        } else {
            found.insert(word(rest).to_owned());
        }
    }
    found
}

/// The first segment of each path in a `{a, b::c, d::{e, f}}` whose brace is already open.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut expects) = (0_usize, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects = true,
            c if expects && (c.is_alphabetic() || c == '_') => {
                names.push(word(&group[at..]).to_owned());
                expects = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn imports_are_seen_in_every_form() {
    let code = "use crate::a::b;\nuse crate::{c, d::{e, f}};\nlet x = crate::g::h();\n\
                pub(in crate::i) fn k() {}\nuse super::super::j::m;\nuse super::n;\n";
    let expected = ["a", "c", "d", "g", "i", "j"].map(str::to_owned);
    assert_eq!(imports(code, 2), expected.into());
}
