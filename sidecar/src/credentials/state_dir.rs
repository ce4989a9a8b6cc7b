//! The one directory that this sidecar keeps between runs: the sealed host key, the key that
//! seals it, the trust bundle, and the last deny list. Called by `host_key`, by `credentials::run`, and by `auditor` for
//! a directory of its own below it.
//!
//! Never: holds an SVID or its key, follows a symbolic link, reads a file that others may write.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Nobody else may look in.
const DIRECTORY_MODE: u32 = 0o700;
/// The largest file here is the deny list, which came in one gRPC message: at most 4 MiB.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
const LOCK_FILE: &str = "lock";

/// Who may read a file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// 0600: any bit for group or others is refused.
    Secret,
    /// 0644: others may read, nobody but us may write.
    Public,
}

impl Secrecy {
    fn mode(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }

    fn forbidden(self) -> u32 {
        match self {
            Self::Secret => 0o077,
            Self::Public => 0o022,
        }
    }
}

/// What is wrong with the state directory: the operator's to repair, each in one line.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path} belongs to uid {seen}, expected uid {expected}; run `chown {expected} {path}`")]
    Owner { path: PathBuf, seen: u32, expected: u32 },
    #[error("{path} has mode {seen:04o}, expected {expected:04o}; run `chmod {expected:o} {path}`")]
    Mode { path: PathBuf, seen: u32, expected: u32 },
    #[error("{path} is not a {expected}; move it away")]
    Kind { path: PathBuf, expected: &'static str },
    #[error("{path} has {seen} bytes, more than the {MAX_FILE_BYTES} it may have; move it away")]
    TooLarge { path: PathBuf, seen: u64 },
    #[error("another sidecar uses {path}; give each sidecar a state directory of its own")]
    InUse { path: PathBuf },
    #[error("{action} {path} failed: {source}; it must be writable by uid {uid}", uid = own_uid())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// The directory, checked, and ours alone while this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory (0700) if it is missing, checks it, and takes its lock: two sidecars
    /// with one host key would supersede each other without end.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        match DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path) {
            Ok(()) => {}
            Err(source) => return Err(io_error("making", path, source)),
        }
        let seen = fs::symlink_metadata(path).map_err(|e| io_error("reading", path, e))?;
        if !seen.is_dir() {
            return Err(StateError::Kind { path: path.into(), expected: "directory" });
        }
        check_owner(path, seen.uid())?;
        if seen.mode() & 0o077 != 0 {
            let seen = seen.mode() & 0o7777;
            return Err(StateError::Mode { path: path.into(), seen, expected: DIRECTORY_MODE });
        }
        Ok(Self { _lock: lock(path)?, path: path.into() })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file's bytes, or `None` where there is no such file.
    pub fn read(&self, name: &str, secrecy: Secrecy) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        let opened = OpenOptions::new()
            .read(true)
            // Non-blocking: a FIFO put in the place of a file must not hold the start.
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
                return Err(StateError::Kind { path, expected: "regular file" });
            }
            Err(source) => return Err(io_error("opening", &path, source)),
        };
        check_file(&path, &file, secrecy)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|source| io_error("reading", &path, source))?;
        Ok(Some(bytes))
    }

    /// Replaces the file as a whole or not at all, also when the machine dies in the middle.
    pub fn write(&self, name: &str, bytes: &[u8], secrecy: Secrecy) -> Result<(), StateError> {
        let path = self.file(name);
        let fresh = self.file(&format!("{name}.new"));
        let written = (|| {
            // What a crash left behind; the lock says that nobody else is at work on it.
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(secrecy.mode())
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|source| io_error("writing", &path, source))
    }
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(Secrecy::Secret.mode())
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .map_err(|source| io_error("opening", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse { path: directory.into() }),
        Err(fs::TryLockError::Error(source)) => Err(io_error("locking", &path, source)),
    }
}

fn check_file(path: &Path, file: &File, secrecy: Secrecy) -> Result<(), StateError> {
    let seen = file.metadata().map_err(|source| io_error("reading", path, source))?;
    if !seen.is_file() {
        return Err(StateError::Kind { path: path.into(), expected: "regular file" });
    }
    check_owner(path, seen.uid())?;
    if seen.mode() & secrecy.forbidden() != 0 {
        let (seen, expected) = (seen.mode() & 0o7777, secrecy.mode());
        return Err(StateError::Mode { path: path.into(), seen, expected });
    }
    if seen.len() > MAX_FILE_BYTES {
        return Err(StateError::TooLarge { path: path.into(), seen: seen.len() });
    }
    Ok(())
}

fn check_owner(path: &Path, seen: u32) -> Result<(), StateError> {
    let expected = own_uid();
    if seen == expected {
        return Ok(());
    }
    Err(StateError::Owner { path: path.into(), seen, expected })
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("state");
        (outer, path)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_was_written_is_read_back_with_its_mode() {
        let (_outer, path) = fresh();
        let state = StateDir::open(&path).unwrap();
        for (name, secrecy, mode) in
            [("a.key", Secrecy::Secret, 0o600), ("b.pem", Secrecy::Public, 0o644)]
        {
            state.write(name, b"first", secrecy).unwrap();
            state.write(name, b"second", secrecy).unwrap();
            assert_eq!(state.read(name, secrecy).unwrap().unwrap(), b"second");
            let seen = fs::metadata(state.file(name)).unwrap().mode() & 0o7777;
            assert_eq!(seen, mode, "{name}");
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert!(state.read("absent", Secrecy::Secret).unwrap().is_none());
    }

    #[test]
    fn leftovers_of_a_crash_are_overwritten() {
        let (_outer, path) = fresh();
        let state = StateDir::open(&path).unwrap();
        fs::write(state.file("a.key.new"), b"half").unwrap();
        state.write("a.key", b"whole", Secrecy::Secret).unwrap();
        assert_eq!(state.read("a.key", Secrecy::Secret).unwrap().unwrap(), b"whole");
    }

    #[test]
    fn open_permissions_are_refused_with_the_command_that_repairs_them() {
        let (_outer, path) = fresh();
        let state = StateDir::open(&path).unwrap();
        state.write("a.key", b"x", Secrecy::Secret).unwrap();
        for (mode, secrecy, refused) in [
            (0o640, Secrecy::Secret, true),
            (0o604, Secrecy::Secret, true),
            (0o400, Secrecy::Secret, false),
            (0o644, Secrecy::Public, false),
            (0o664, Secrecy::Public, true),
        ] {
            chmod(&state.file("a.key"), mode);
            let outcome = state.read("a.key", secrecy);
            assert_eq!(outcome.is_err(), refused, "{mode:o} {secrecy:?}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains("run `chmod"), "{error}");
            }
        }
        drop(state);
        chmod(&path, 0o755);
        assert!(matches!(StateDir::open(&path), Err(StateError::Mode { seen: 0o755, .. })));
    }

    #[test]
    fn a_symbolic_link_and_a_fifo_are_refused() {
        let (_outer, path) = fresh();
        let state = StateDir::open(&path).unwrap();
        state.write("real", b"x", Secrecy::Secret).unwrap();
        symlink(state.file("real"), state.file("link")).unwrap();
        nix::unistd::mkfifo(&state.file("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        for name in ["link", "fifo"] {
            let outcome = state.read(name, Secrecy::Secret);
            assert!(matches!(outcome, Err(StateError::Kind { .. })), "{name}: {outcome:?}");
        }
    }

    #[test]
    fn an_oversized_file_is_refused() {
        let (_outer, path) = fresh();
        let state = StateDir::open(&path).unwrap();
        let bytes = vec![0; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
        state.write("big", &bytes, Secrecy::Secret).unwrap();
        assert!(matches!(state.read("big", Secrecy::Secret), Err(StateError::TooLarge { .. })));
    }

    #[test]
    fn a_second_sidecar_in_the_same_directory_is_refused() {
        let (_outer, path) = fresh();
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        drop(first);
        assert!(StateDir::open(&path).is_ok());
    }

    #[test]
    fn a_foreign_owner_is_refused_with_the_command_that_repairs_it() {
        let error = check_owner(Path::new("/x"), own_uid() + 1).unwrap_err();
        assert!(error.to_string().contains("run `chown"), "{error}");
        assert!(check_owner(Path::new("/x"), own_uid()).is_ok());
    }
}
