//! Which of the replicas this process is: an id that is made once and stays in the data directory.
//! `app` reads it; `rotation` keeps each replica's intermediate apart by it.
//!
//! Never: a secret. Two processes with one id are found out when they renew one intermediate.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaId(String);

#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    #[error("cannot read or make {}: {cause}; it must be ours to read and write", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "{} holds {found:?} but must hold 16 hexadecimal digits; remove it, and this replica begins anew with an intermediate of its own",
        path.display()
    )]
    Malformed { path: PathBuf, found: String },
}

impl ReplicaId {
    pub const FILE: &'static str = "replica.id";

    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// The id in this data directory; `fresh` becomes it if there is none yet.
    pub fn open_or_make(data: &Path, fresh: Self) -> Result<Self, ReplicaError> {
        let path = data.join(Self::FILE);
        let made =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(
                |mut file| {
                    writeln!(file, "{fresh}")?;
                    file.sync_all()
                },
            );
        match made {
            Ok(()) => Ok(fresh),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(cause) => Err(ReplicaError::Io { path, cause }),
        }
    }

    /// The id in this data directory, if there is one.
    pub fn open(data: &Path) -> Result<Option<Self>, ReplicaError> {
        match Self::read(data.join(Self::FILE)) {
            Err(ReplicaError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// From its 16 digits.
    pub fn parse(digits: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 16 && digits.bytes().all(hex)).then(|| Self(digits.to_owned()))
    }

    fn read(path: PathBuf) -> Result<Self, ReplicaError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) => return Err(ReplicaError::Io { path, cause }),
        };
        Self::parse(text.trim_end())
            .ok_or_else(|| ReplicaError::Malformed { path, found: text.chars().take(40).collect() })
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_made_once_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ReplicaId::open(dir.path()).unwrap(), None);
        let id = |byte| ReplicaId::open_or_make(dir.path(), ReplicaId::from_bytes([byte; 8]));
        assert_eq!(id(1).unwrap().to_string(), "0101010101010101");
        assert_eq!(id(2).unwrap().to_string(), "0101010101010101");
        for wrong in ["", "0101", "010101010101010G", "01010101010101012"] {
            fs::write(dir.path().join(ReplicaId::FILE), wrong).unwrap();
            assert!(matches!(id(3), Err(ReplicaError::Malformed { .. })), "{wrong:?}");
        }
    }
}
