//! What can be wrong with a configuration file, each in one line: where, what was seen, what was
//! expected, how to fix it. Called by `config`; printed by `main`.
//!
//! Never: a line break, or more of the file's text than one shortened value.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::MAX_FILE_BYTES;

/// A place in the file: `sidecar.toml:3:9`, counted from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The operator's mistakes; none is anybody else's.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read: {source}: {fix}")]
    Unreadable { path: PathBuf, source: io::Error, fix: &'static str },
    #[error("{path}: is no regular file: name the TOML file itself")]
    NoFile { path: PathBuf },
    #[error(
        "{path}: has mode {mode:04o}, expected nobody but its owner and group to write it: run chmod o-w {path}"
    )]
    OthersWrite { path: PathBuf, mode: u32 },
    #[error("{path}: has more than {MAX_FILE_BYTES} bytes: shorten it, or name the right file")]
    TooLarge { path: PathBuf },
    #[error("{path}: is no UTF-8 text: save it as UTF-8")]
    NotText { path: PathBuf },
    #[error("{at}: {why}: correct the TOML syntax there")]
    Syntax { at: At, why: Box<str> },
    #[error("{at}: unknown key `{key}`, expected one of {known}: {fix}")]
    UnknownKey { at: At, key: Box<str>, known: Box<str>, fix: Box<str> },
    #[error("{at}: `{key}` is missing, expected {expected}: add for example {example}")]
    Missing { at: At, key: Box<str>, expected: Box<str>, example: Box<str> },
    #[error("{at}: `{key}` is {seen}, expected {expected}: {fix}")]
    Value { at: At, key: Box<str>, seen: Box<str>, expected: Box<str>, fix: Box<str> },
}
