//! House style as a test: what a reader may rely on in every file of this workspace. Rules about
//! single files are here; `floors` judges imports, `dead` unreachable files, `limits` the table of
//! limits, `map` the map in ARCHITECTURE.md.
//!
//! Never: judges behaviour, or needs more than the files themselves.

// SPDX-License-Identifier: Apache-2.0

mod dead;
mod floors;
mod limits;
mod map;
mod source;

use source::{Source, end_of_item, files, read, rust_files};

/// Above it a function no longer fits a screen.
const MOST_LINES_OF_A_FUNCTION: usize = 70;

/// Above it a file is two rooms.
const MOST_LINES_OF_A_FILE: usize = 400;

const SPDX: &str = "// SPDX-License-Identifier: Apache-2.0";

#[test]
fn every_file_says_what_it_is_and_what_it_never_does() {
    let wrong: Vec<String> = rust_files().iter().filter_map(header_fault).collect();
    assert_none(&wrong);
}

#[test]
fn every_function_fits_a_screen() {
    let mut wrong = Vec::new();
    for file in rust_files() {
        for (name, line, length) in functions(&file.code) {
            if length > MOST_LINES_OF_A_FUNCTION {
                wrong.push(format!("{}:{line}: fn {name} has {length} lines", file.path));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_is_one_room() {
    let long = rust_files().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > MOST_LINES_OF_A_FILE).then(|| format!("{}: {lines} lines", file.path))
    });
    assert_none(&long.collect::<Vec<_>>());
}

#[test]
fn nothing_unwraps_outside_tests() {
    let mut wrong = Vec::new();
    for file in rust_files() {
        for (index, line) in file.shipped().lines().enumerate() {
            if line.contains(".unwrap()") {
                wrong.push(format!("{}:{}: unwrap; state the invariant", file.path, index + 1));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn names_that_say_nothing_are_not_used() {
    let vague = ["util", "utils", "common", "helper", "helpers", "manager", "misc"];
    let wrong = rust_files().into_iter().filter(|file| {
        file.path.split('/').any(|part| vague.contains(&part.trim_end_matches(".rs")))
    });
    assert_none(&wrong.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn every_document_is_whole_and_names_no_home_folder() {
    let mut wrong = Vec::new();
    for path in files(".md") {
        let text = read(&path);
        if !text.ends_with('\n') {
            wrong.push(format!("{path}: no newline at its end"));
        }
        for (index, line) in text.lines().enumerate() {
            if line.starts_with("<<<<<<<") || line.starts_with(">>>>>>>") {
                wrong.push(format!("{path}:{}: half of a merge", index + 1));
            }
            if line.contains("/home/") || line.contains("/root/") {
                wrong.push(format!("{path}:{}: names a machine's own folder", index + 1));
            }
        }
    }
    assert_none(&wrong);
}

/// Fails with every fault on a line of its own.
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn header_fault(file: &Source) -> Option<String> {
    let fault = |what: &str| Some(format!("{}: {what}", file.path));
    let header: Vec<&str> = file.text.lines().take_while(|line| line.starts_with("//!")).collect();
    if header.is_empty() {
        return fault("does not open with //!");
    }
    if !header.iter().any(|line| line.starts_with("//! Never:")) {
        return fault("its header has no line that starts `Never:`");
    }
    let mut below = file.text.lines().skip(header.len());
    if below.next() != Some("") || below.next() != Some(SPDX) {
        return fault("no blank line and SPDX line below the header");
    }
    None
}

/// Name, line and length of every function that has a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word =
            code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        let end = end_of_item(code, at);
        if code[..end].ends_with('}') {
            let line = code[..at].lines().count().max(1);
            found.push((name, line, code[at..end].lines().count()));
        }
    }
    found
}

#[test]
fn functions_are_measured_from_their_name_to_their_brace() {
    let code = "fn a() {\n    b();\n}\ntrait T {\n    fn c();\n}\n";
    assert_eq!(functions(code), [("a".to_owned(), 1, 3)]);
}
