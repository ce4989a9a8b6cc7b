//! The map in ARCHITECTURE.md names every room that there is.
//!
//! Never: judges what the map says about a room.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use crate::assert_none;
use crate::source::{read, rust_files};

/// Folders whose entries are rooms; the map has a section for each.
const HOUSES: [&str; 9] = [
    "ca/identity/src",
    "ca/src",
    "sidecar/src",
    "deploy/cni/src",
    "deploy/fake-api/src",
    "deploy/controller/src",
    "deploy/lab/src",
    "deploy/cli/src",
    "tests/src",
];

#[test]
fn the_map_names_every_room() {
    let map = read("ARCHITECTURE.md");
    let sources = rust_files();
    let mut missing = Vec::new();
    for house in HOUSES {
        let section = section(&map, house);
        let rooms: BTreeSet<&str> = sources
            .iter()
            .filter_map(|file| file.path.strip_prefix(house)?.strip_prefix('/'))
            .map(|path| path.split('/').next().unwrap_or(path).trim_end_matches(".rs"))
            .filter(|room| !matches!(*room, "lib" | "testing"))
            .collect();
        for room in rooms {
            if !section.contains(&format!("`{room}`")) {
                missing.push(format!("ARCHITECTURE.md, section `{house}`: no room `{room}`"));
            }
        }
    }
    assert_none(&missing);
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let sources = rust_files();
    let mut missing = Vec::new();
    for document in ["ARCHITECTURE.md", "SECURITY.md", "README.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let named = text.split('`').skip(1).step_by(2).filter(|name| reads_like_a_test(name));
        for name in named {
            let declaration = format!("fn {name}(");
            if !sources.iter().any(|file| file.code.contains(&declaration)) {
                missing.push(format!("{document}: there is no test {name}"));
            }
        }
    }
    assert_none(&missing);
}

/// A test's name is a sentence.
fn reads_like_a_test(name: &str) -> bool {
    name.matches('_').count() >= 4
        && !name.starts_with("myelin_")
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The text below the heading that names this folder, up to the next heading.
fn section<'a>(map: &'a str, house: &str) -> &'a str {
    let heading = format!("### `{house}`");
    let start = map.find(&heading).unwrap_or_else(|| panic!("ARCHITECTURE.md: no {heading}"));
    let text = &map[start + heading.len()..];
    text.find("\n#").map_or(text, |end| &text[..end])
}
