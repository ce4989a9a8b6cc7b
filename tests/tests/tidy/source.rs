//! The workspace's Rust files as text: where they are, and what of each is code rather than
//! comment, string or test. Called by every rule of this suite.
//!
//! Never: parses Rust; it blanks out what a rule must not see and leaves the lines where they are.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
pub(crate) struct Source {
    /// Relative to the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The same lines, with comments and the insides of literals as blanks.
    pub(crate) code: String,
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of the workspace, sorted by path.
pub(crate) fn rust_files() -> Vec<Source> {
    let mut found: Vec<Source> = files(".rs")
        .into_iter()
        .map(|path| {
            let text = read(&path);
            let code = blank(&text);
            Source { path, text, code }
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every file whose name ends so, build output and hidden folders aside.
pub(crate) fn files(ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&root(), "", ending, &mut found);
    found
}

impl Source {
    /// Is all of this file test code?
    pub(crate) fn is_test(&self) -> bool {
        let in_folder = |folder: &str| {
            self.path.starts_with(&format!("{folder}/"))
                || self.path.contains(&format!("/{folder}/"))
        };
        let name = self.path.rsplit('/').next().unwrap_or_default();
        in_folder("tests")
            || in_folder("benches")
            || matches!(name, "tests.rs" | "testing.rs" | "conformance.rs")
    }

    /// The code that runs outside tests: `#[cfg(test)] mod ... { }` blocks are blank as well.
    pub(crate) fn shipped(&self) -> String {
        if self.is_test() {
            return String::new();
        }
        let mut code = self.code.clone();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = end_of_item(&code, start);
            let blanked: String =
                code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            code.replace_range(start..end, &blanked);
        }
        code
    }
}

/// The byte behind the item at `start`: its closing brace, or its semicolon.
pub(crate) fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn walk(base: &Path, under: &str, ending: &str, found: &mut Vec<String>) {
    let folder = base.join(under);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    for entry in entries {
        let entry = entry.expect("a folder that was opened can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if under.is_empty() { name.clone() } else { format!("{under}/{name}") };
        if entry.path().is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(base, &path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// Blanks comments and the insides of literals; every line keeps its number.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = token(bytes, at);
        let is_code = length == 1;
        for &byte in &bytes[at..(at + length).min(bytes.len())] {
            out.push(if is_code || byte == b'\n' { byte } else { b' ' });
        }
        at += length;
    }
    // Blanks replace whole characters' bytes, so what is left is what was valid before.
    String::from_utf8_lossy(&out).into_owned()
}

/// Length of the comment or literal at `at`; 1 for anything else.
fn token(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map_or(b' ', |previous| bytes[previous]);
    let in_word = before.is_ascii_alphanumeric() || before == b'_';
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()).max(2),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => string(rest, 1),
        [b'b', b'"', ..] if !in_word => string(rest, 2),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string(rest, 1).unwrap_or(1),
        [b'b', b'r', b'"' | b'#', ..] if !in_word => raw_string(rest, 2).unwrap_or(1),
        [b'\'', b'\\', ..] => {
            2 + rest[2..].iter().skip(1).position(|&b| b == b'\'').map_or(1, |p| p + 2)
        }
        [b'\'', first, ..] => {
            let width = match first {
                0xF0.. => 4,
                0xE0.. => 3,
                0xC0.. => 2,
                _ => 1,
            };
            // Otherwise a lifetime.
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
        }
        _ => 1,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    rest.len()
}

fn string(rest: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], start: usize) -> Option<usize> {
    let hashes = rest[start..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(start + hashes) != Some(&b'"') {
        return None;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = start + hashes + 1;
    let end = rest[inside..].windows(closing.len()).position(|window| window == closing)?;
    Some(inside + end + closing.len())
}

#[test]
fn blanking_keeps_code_and_drops_the_rest() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x \" {", y)"#, "f(        , y)"),
        (r##"f(r#"{ "#)"##, "f(       )"),
        ("'{' 'a 'b'", "    'a    "),
        (r"'\'' x", "     x"),
        (r"'\u{7f}' x", "         x"),
    ] {
        assert_eq!(blank(text), expected, "{text}");
    }
}
