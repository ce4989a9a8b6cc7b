//! Trouble with the file itself: each kind is one line with its fix.
//!
//! Never: needs another user, so that it says the same as root and as anybody.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::{ConfigError, MAX_FILE_BYTES, load};
use super::MINIMAL;

fn refused(path: &Path) -> ConfigError {
    let error = load(path).unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n') && line.contains(path.to_str().unwrap()), "{line}");
    error
}

#[test]
fn a_sound_file_is_loaded_and_its_path_is_in_every_complaint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.toml");
    fs::write(&path, MINIMAL).unwrap();
    assert_eq!(load(&path).unwrap().trust_domain.as_str(), "td.example");
    fs::write(&path, "trust_domain = 7\n").unwrap();
    let line = refused(&path).to_string();
    assert!(line.starts_with(&format!("{}:1:16: ", path.display())), "{line}");
}

#[test]
fn a_file_that_anybody_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.toml");
    fs::write(&path, MINIMAL).unwrap();
    for (mode, accepted) in [(0o600, true), (0o644, true), (0o664, true), (0o666, false)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match load(&path) {
            Ok(_) => assert!(accepted, "{mode:o}"),
            Err(error) => {
                assert!(!accepted && matches!(error, ConfigError::OthersWrite { .. }), "{error}");
            }
        }
    }
}

#[test]
fn absent_odd_and_oversized_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    assert!(matches!(refused(&at("absent")), ConfigError::Unreadable { .. }));
    assert!(matches!(refused(directory.path()), ConfigError::NoFile { .. }));
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(refused(&at("pipe")), ConfigError::NoFile { .. }));
    let size = usize::try_from(MAX_FILE_BYTES).unwrap() + 1;
    fs::write(at("large"), vec![b'#'; size]).unwrap();
    assert!(matches!(refused(&at("large")), ConfigError::TooLarge { .. }));
    fs::write(at("binary"), [0xff, 0xfe]).unwrap();
    assert!(matches!(refused(&at("binary")), ConfigError::NotText { .. }));
}
