//! Files that others read while we write them: whole, or as they were. Called by `install`.
//!
//! Never: a half-written file under a name that a runtime reads.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Longest configuration, token or certificate that is read: each has some kilobytes.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What a file says; `None`: there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(Some(text))
}

/// Writes `bytes` beside `path` and renames: readers see the old or the new.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path)?;
    let written = write(&beside, bytes, mode).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written?;
    // The name too is to outlive a power cut.
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The bits of a file's mode.
pub(super) fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // What an earlier run may have left there had perhaps another mode.
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Runtimes read `*.conf`, `*.conflist` and `*.json`: this is none of them.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
    Ok(path.with_file_name(format!(".{}.myelin-new", name.to_string_lossy())))
}
