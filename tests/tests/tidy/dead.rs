//! No dead files: every Rust file is a target of its crate or reached from one by `mod`.
//!
//! Never: asks cargo; it follows the same rules by name.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use crate::assert_none;
use crate::source::{files, rust_files};

#[test]
fn every_file_is_reached_from_a_target() {
    let sources = rust_files();
    let texts: BTreeMap<&str, &str> =
        sources.iter().map(|file| (file.path.as_str(), file.code.as_str())).collect();
    let mut waiting: Vec<(String, bool)> = Vec::new();
    for manifest in files("Cargo.toml") {
        let folder = manifest.trim_end_matches("Cargo.toml");
        let targets = texts.keys().filter(|path| is_target(path.strip_prefix(folder)));
        waiting.extend(targets.map(|path| ((*path).to_owned(), true)));
    }
    let mut reached = BTreeSet::new();
    while let Some((path, is_target)) = waiting.pop() {
        let Some(code) = texts.get(path.as_str()) else { continue };
        let below = folder_of_children(&path, is_target);
        for name in declared(code) {
            waiting.push((format!("{below}{name}.rs"), false));
            waiting.push((format!("{below}{name}/mod.rs"), false));
        }
        reached.insert(path);
    }
    let dead = texts.keys().filter(|path| !reached.contains(**path));
    assert_none(&dead.map(|path| format!("{path}: nothing declares it")).collect::<Vec<_>>());
}

/// Cargo's own rules for what is a target.
fn is_target(path: Option<&str>) -> bool {
    let Some(path) = path else { return false };
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts.as_slice(),
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["tests" | "benches" | "examples", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests" | "benches" | "examples", _, "main.rs"]
    )
}

fn folder_of_children(path: &str, is_target: bool) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if is_target || name == "mod.rs" {
        format!("{folder}/")
    } else {
        format!("{folder}/{}/", name.trim_end_matches(".rs"))
    }
}

/// The names in `mod name;`.
fn declared(code: &str) -> Vec<&str> {
    let lines = code.lines().map(str::trim);
    lines
        .filter_map(|line| {
            let (_, after) = line.split_once("mod ").filter(|(before, _)| {
                before.is_empty() || before.starts_with("pub") || before.ends_with(' ')
            })?;
            after.strip_suffix(';').filter(|name| !name.contains(' '))
        })
        .collect()
}

#[test]
fn a_module_without_a_body_is_a_file() {
    assert_eq!(declared("mod a;\npub mod b;\npub(crate) mod c;\nmod d { }\n"), ["a", "b", "c"]);
}
