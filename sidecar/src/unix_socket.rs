//! A Unix socket whose place in the file system was looked at first: the directory is not
//! everybody's to write, a dead socket is replaced, and the file goes with its owner. Called by
//! `admin` and `workload_api`.
//!
//! Never: replaces a socket on which somebody answers, removes a file that is not a dead socket,
//! decides who may connect beyond the file's mode.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Group and others may not write where the socket lives.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why there is no socket. `key` is the configuration's name for its path.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(
        "cannot make the socket {path}: {source}: choose a `{key}` whose directory this user may write"
    )]
    Socket { path: PathBuf, key: &'static str, source: io::Error },
    #[error(
        "cannot use the directory {path} of `{key}`: {source}: create it with mode 0755 or less, owned by root or this user"
    )]
    Directory { path: PathBuf, key: &'static str, source: io::Error },
    #[error(
        "the directory {path} of `{key}` has mode {mode:04o}, expected nobody but its owner to write there: chmod go-w it, or name a directory of its own in `{key}`"
    )]
    DirectoryOpen { path: PathBuf, key: &'static str, mode: u32 },
    #[error(
        "the directory {path} of `{key}` belongs to uid {seen}, expected root or uid {own}: chown it, or choose another `{key}`"
    )]
    DirectoryOwner { path: PathBuf, key: &'static str, seen: u32, own: u32 },
    #[error("another process answers on {path}: stop it, or choose another `{key}`")]
    SocketTaken { path: PathBuf, key: &'static str },
    #[error("{path} exists and is no socket: remove it, or choose another `{key}`")]
    NoSocket { path: PathBuf, key: &'static str },
}

/// A bound socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct BoundSocket {
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our own file, so that no successor's is removed.
    file: (u64, u64),
}

impl BoundSocket {
    /// Checks the directory (made with mode 0755 if it is missing), replaces a dead socket, binds
    /// and sets the file's mode. Must be called within the runtime that will serve it.
    pub fn bind(path: &Path, key: &'static str, mode: u32) -> Result<Self, SocketError> {
        check_directory(path, key, geteuid().as_raw())?;
        remove_dead_socket(path, key)?;
        let failed = |source| SocketError::Socket { path: path.to_owned(), key, source };
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Between these two calls the umask decides who connects; whoever serves asks the kernel
        // for every caller's user anyway.
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Self { listener, path: path.to_owned(), file })
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours {
            // A file that stays behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn check_directory(socket: &Path, key: &'static str, own: u32) -> Result<(), SocketError> {
    let path = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let failed = |source| SocketError::Directory { path: path.clone(), key, source };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(failed)?;
    let metadata = fs::metadata(&path).map_err(failed)?;
    let (seen, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if seen != 0 && seen != own {
        return Err(SocketError::DirectoryOwner { path, key, seen, own });
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(SocketError::DirectoryOpen { path, key, mode });
    }
    Ok(())
}

fn remove_dead_socket(path: &Path, key: &'static str) -> Result<(), SocketError> {
    let failed = |source| SocketError::Socket { path: path.to_owned(), key, source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(SocketError::NoSocket { path: path.to_owned(), key }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(failed(why)),
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full backlog must not hold us: it counts as an answer.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(why) if why.kind() != io::ErrorKind::WouldBlock => Err(failed(why)),
        _ => Err(SocketError::SocketTaken { path: path.to_owned(), key }),
    }
}
