//! The data directory: who may read it, and where its files are. `app` opens it at start, the
//! operator commands before they look for a running server.
//!
//! Never: repairs wrong permissions by itself (somebody set them, somebody must know), or follows a
//! symbolic link.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A PIN of a token: PKCS#11 modules take far less.
const MAX_LINE_BYTES: usize = 255;

/// Its file name: whoever has another pin's path finds this one beside it.
pub const FEDERATION_PIN: &str = "federation.pin";

/// A directory that only this process's user can enter.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Makes the directory (0700) if it is not there, then refuses it unless it and its files are
    /// ours alone.
    pub fn open_or_make(path: &Path) -> Result<Self, DataDirError> {
        if fs::symlink_metadata(path).is_err() {
            DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(|cause| DataDirError::at(path, cause))?;
        }
        Self::open(path)
    }

    /// Opens a directory that must be there.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let seen = fs::symlink_metadata(path).map_err(|cause| DataDirError::at(path, cause))?;
        if !seen.is_dir() {
            return Err(DataDirError::NotADirectory(path.to_owned()));
        }
        ours_alone(path, &seen, "0700")?;
        let directory = Self { path: path.to_owned() };
        let pins = [directory.trust_pin(), directory.federation_pin()];
        for file in [directory.store(), directory.default_seal_key()].into_iter().chain(pins) {
            if let Ok(seen) = fs::symlink_metadata(&file) {
                ours_alone(&file, &seen, "0600")?;
            }
        }
        Ok(directory)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    pub fn default_seal_key(&self) -> PathBuf {
        self.path.join("seal.key")
    }

    /// The seal key under a key of a token; useless without the token.
    pub fn wrapped_seal_key(&self) -> PathBuf {
        self.path.join("seal.key.wrapped")
    }

    /// The step of the root ladder that this replica believes.
    pub fn trust_pin(&self) -> PathBuf {
        self.path.join("trust.pin")
    }

    /// The roll of foreign trust domains that this replica believes.
    pub fn federation_pin(&self) -> PathBuf {
        self.path.join(FEDERATION_PIN)
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }
}

/// Replaces a file as a whole or not at all, durably; it is its owner's alone.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a secret of `N` bytes from a file that must be ours alone (0600), or a credential that
/// systemd keeps for this service.
pub fn read_secret<const N: usize>(path: &Path) -> Result<Zeroizing<[u8; N]>, DataDirError> {
    let mut file = open_secret(path)?;
    exactly(&mut file, path)
}

/// Reads a secret of `N` bytes from a descriptor that whoever started this process left open, and
/// closes it: no child shall inherit it. Standard input (0) is read as it is. Any other is opened
/// anew through /proc, as safe code must, so the kernel asks once more whether this user may read
/// what is behind it: a file or pipe of another user is refused, and so is a socket.
pub fn read_descriptor<const N: usize>(number: i32) -> Result<Zeroizing<[u8; N]>, DataDirError> {
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let given = |cause| DataDirError::Descriptor { number, cause };
    if number == 0 {
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(given)?;
        let secret = exactly(&mut fs::File::from(stdin), &path);
        // Not closed: the next file would become standard input.
        let nothing = fs::File::open("/dev/null").map_err(given)?;
        nix::unistd::dup2_stdin(nothing).map_err(|error| given(error.into()))?;
        return secret;
    }
    let mut file = OpenOptions::new().read(true).open(&path).map_err(given)?;
    let secret = exactly(&mut file, &path);
    nix::unistd::close(number).map_err(|error| given(error.into()))?;
    secret
}

fn open_secret(path: &Path) -> Result<fs::File, DataDirError> {
    let at = |cause| DataDirError::at(path, cause);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(at)?;
    let seen = file.metadata().map_err(at)?;
    if !is_credential(path, &seen) {
        ours_alone(path, &seen, "0600")?;
    }
    Ok(file)
}

fn exactly<const N: usize>(
    file: &mut fs::File,
    path: &Path,
) -> Result<Zeroizing<[u8; N]>, DataDirError> {
    let mut secret = Zeroizing::new([0; N]);
    let whole = file.read_exact(&mut *secret).is_ok()
        && file.read(&mut [0; 1]).map_err(|cause| DataDirError::at(path, cause))? == 0;
    if whole {
        Ok(secret)
    } else {
        Err(DataDirError::SecretLength { path: path.to_owned(), expected: N })
    }
}

/// Reads one line of text (a PIN) from a file that must be ours alone; its newline is not part of
/// it.
pub fn read_line(path: &Path) -> Result<Zeroizing<String>, DataDirError> {
    let at = |cause| DataDirError::at(path, cause);
    let mut file = open_secret(path)?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_LINE_BYTES + 1));
    (&mut file).take(MAX_LINE_BYTES as u64 + 1).read_to_string(&mut text).map_err(at)?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.is_empty() || text.len() > MAX_LINE_BYTES || text.contains('\n') {
        return Err(DataDirError::NotALine(path.to_owned()));
    }
    Ok(text)
}

/// Reads a file of at most `most` bytes that somebody hands over. What is longer is refused: cut, it
/// would be taken for something else.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Whole from the start: no copy of a key stays behind where it grew.
    let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(0) + 1);
    fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// [`read_bounded`], of text.
pub fn read_bounded_text(path: &Path, most: u64) -> io::Result<String> {
    let bytes = read_bounded(path, most)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is no text in UTF-8"))
}

/// Writes a new secret file (0600), durably; refuses to overwrite one.
pub fn write_secret(path: &Path, secret: &[u8]) -> Result<(), DataDirError> {
    let at = |cause| DataDirError::at(path, cause);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at)?;
    file.write_all(secret).and_then(|()| file.sync_all()).map_err(at)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(at)
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot use {}: {cause}; it must be ours to read and write", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{} is not a directory; name the CA's data directory with --data", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} has mode {found:04o} but must be {expected} at most; run: chmod {expected} {}", path.display(), path.display())]
    TooWide { path: PathBuf, found: u32, expected: &'static str },
    #[error("{} belongs to uid {found} but this process runs as uid {expected}; chown it, or run as its owner", path.display())]
    OtherOwner { path: PathBuf, found: u32, expected: u32 },
    #[error("{} must hold one line of 1 to {MAX_LINE_BYTES} bytes: the PIN", .0.display())]
    NotALine(PathBuf),
    #[error("{} must hold exactly {expected} bytes; restore the file from your backup, nothing else opens the CA's keys", path.display())]
    SecretLength { path: PathBuf, expected: usize },
    #[error(
        "cannot read a secret from file descriptor {number}: {cause}; whoever starts the CA must open it on a file or pipe that the CA's own user may read, as in: myelin-ca serve --seal-key-fd 3 3<FILE (what only another user may read, and sockets: --seal-key-fd 0 <FILE)"
    )]
    Descriptor { number: i32, cause: io::Error },
}

impl DataDirError {
    fn at(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }
}

/// systemd gives a service its credentials in a directory that only this service can enter, as files
/// that it cannot write. They may belong to root, and the mode's group bits then are an access list.
fn is_credential(path: &Path, seen: &Metadata) -> bool {
    let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return false };
    let owner = seen.uid() == 0 || seen.uid() == nix::unistd::geteuid().as_raw();
    path.parent() == Some(Path::new(&directory)) && owner && seen.mode() & 0o027 == 0
}

fn ours_alone(path: &Path, seen: &Metadata, expected: &'static str) -> Result<(), DataDirError> {
    let ours = nix::unistd::geteuid().as_raw();
    if seen.uid() != ours {
        return Err(DataDirError::OtherOwner {
            path: path.to_owned(),
            found: seen.uid(),
            expected: ours,
        });
    }
    let mode = seen.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(DataDirError::TooWide { path: path.to_owned(), found: mode, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn new_directory_is_0700_and_accepted_again() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("data");
        DataDir::open_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn directory_or_file_that_others_may_read_is_refused_with_the_fix() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("data");
        let data = DataDir::open_or_make(&path).unwrap();
        for mode in [0o750, 0o705, 0o701] {
            chmod(&path, mode);
            let refused = DataDir::open(&path).unwrap_err().to_string();
            assert!(refused.contains("chmod 0700"), "{refused}");
        }
        chmod(&path, 0o700);
        write_secret(&data.default_seal_key(), &[7; 32]).unwrap();
        chmod(&data.default_seal_key(), 0o640);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::TooWide { .. })));
        assert!(matches!(
            read_secret::<32>(&data.default_seal_key()),
            Err(DataDirError::TooWide { .. })
        ));
    }

    #[test]
    fn file_in_place_of_the_directory_and_a_link_to_one_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(DataDir::open_or_make(&file), Err(DataDirError::NotADirectory(_))));
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(scratch.path(), &link).unwrap();
        assert!(matches!(DataDir::open_or_make(&link), Err(DataDirError::NotADirectory(_))));
    }

    #[test]
    fn file_that_is_longer_than_it_may_be_is_refused_and_never_cut() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "seven b").unwrap();
        assert_eq!(read_bounded_text(&path, 7).unwrap(), "seven b");
        let refused = read_bounded(&path, 6).unwrap_err().to_string();
        assert!(refused.contains("more than 6 bytes"), "{refused}");
        fs::write(&path, [0xff]).unwrap();
        assert!(read_bounded_text(&path, 7).is_err(), "no text");
    }

    #[test]
    fn secret_is_read_back_and_a_truncated_one_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("secret");
        write_secret(&path, &[7; 32]).unwrap();
        assert_eq!(*read_secret::<32>(&path).unwrap(), [7; 32]);
        assert!(matches!(read_secret::<33>(&path), Err(DataDirError::SecretLength { .. })));
        assert!(matches!(read_secret::<31>(&path), Err(DataDirError::SecretLength { .. })));
        assert!(write_secret(&path, &[8; 32]).is_err(), "an existing secret is never overwritten");
    }
}
