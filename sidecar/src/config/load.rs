//! From a path to the text: the file's kind, size and permissions are looked at before a byte of
//! it counts. Called by `app` and by `myelin-sidecar check`.
//!
//! Never: follows a file that anybody on the machine may rewrite.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::error::ConfigError;
use super::{Config, parse};

/// A thousand services with their endpoints take some hundred kilobytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

const WRITABLE_BY_ANYBODY: u32 = 0o002;

/// Reads, checks and converts one file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path)?;
    parse(&path.display().to_string(), &text)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source: io::Error| {
        let fix = match source.kind() {
            io::ErrorKind::NotFound => "name an existing file with --config",
            io::ErrorKind::PermissionDenied => {
                "let the sidecar's user read it and search its directories"
            }
            _ => "look at the file and its disk",
        };
        ConfigError::Unreadable { path: path.to_owned(), source, fix }
    };
    // Without O_NONBLOCK a named pipe would hold us here until somebody writes to it.
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ConfigError::NoFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_ANYBODY != 0 {
        return Err(ConfigError::OthersWrite { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}
