//! From a path to the text. Called by `app` and by `myelin-controller check`.
//!
//! Never: follows a file that anybody on the machine may rewrite.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::ConfigError;
use super::{Config, parse};

/// A ConfigMap holds no more (Kubernetes' own bound).
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

const WRITABLE_BY_ANYBODY: u32 = 0o002;

/// Reads, checks and converts one file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & WRITABLE_BY_ANYBODY != 0 {
        return Err(ConfigError::OthersWrite { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let no_text = || ConfigError::NoText { path: path.to_owned() };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(no_text());
    }
    let text = String::from_utf8(bytes).map_err(|_| no_text())?;
    parse(&path.display().to_string(), &text)
}
