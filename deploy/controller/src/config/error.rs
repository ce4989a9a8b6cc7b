//! What can be wrong with the controller's file, each in one line: where, what was seen, what was
//! expected, how to fix it. Called by the other files of this room; printed by `main`.
//!
//! Never: a line break, or more of the file's text than one shortened value.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::MAX_FILE_BYTES;

/// The operator's mistakes; none is anybody else's.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read: {source}: name an existing file that this user may read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{path}: has mode {mode:04o}, expected nobody but its owner and group to write it: run chmod o-w {path}"
    )]
    OthersWrite { path: PathBuf, mode: u32 },
    #[error("{path}: is no text of at most {MAX_FILE_BYTES} bytes: name the right file")]
    NoText { path: PathBuf },
    #[error("{at}: {why}")]
    Syntax { at: String, why: String },
    #[error("{at}: `{key}` is {seen}, expected {expected}: {fix}")]
    Value { at: String, key: String, seen: String, expected: String, fix: String },
}

/// The file's text, to turn a byte range into a place and into the words that stand there.
pub(super) struct Source<'t> {
    pub(super) name: &'t str,
    pub(super) text: &'t str,
}

impl Source<'_> {
    /// `controller.toml:3:9`, counted from 1, columns in characters.
    pub(super) fn at(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let (line, column) =
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        format!("{}:{line}:{column}", self.name)
    }

    /// The complaint about the value that stands there.
    pub(super) fn wrong(
        &self,
        span: Range<usize>,
        key: &str,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) -> ConfigError {
        const MAX_CHARS: usize = 60;
        let text = self.text.get(span.clone()).unwrap_or_default();
        let mut seen: String =
            text.chars().take(MAX_CHARS).flat_map(|c| c.escape_default().take(8)).collect();
        seen = seen.replace("\\\"", "\"");
        if text.chars().nth(MAX_CHARS).is_some() {
            seen.push_str("..");
        }
        let (at, key) = (self.at(span.start), key.to_owned());
        ConfigError::Value { at, key, seen, expected: expected.into(), fix: fix.into() }
    }

    /// What the TOML reader complains about: syntax, unknown and missing keys, wrong kinds.
    pub(super) fn syntax(&self, why: &toml::de::Error) -> ConfigError {
        let at = self.at(why.span().map_or(0, |span| span.start));
        let said = why.message().replace('\n', ", ");
        let fix = if said.starts_with("unknown field") {
            "correct or remove it"
        } else if said.starts_with("missing field") {
            "add it to this table"
        } else {
            "correct it there"
        };
        ConfigError::Syntax { at, why: format!("{said}: {fix}") }
    }
}
