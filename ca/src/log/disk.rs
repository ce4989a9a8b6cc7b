//! The issuing log's files: the paths of c2sp.org/tlog-tiles below `log/` in the data directory, so
//! that any static web server could serve a copy of them.
//!
//! A file beyond the journal's head was never promised to anybody: it is overwritten as it stands.
//! Files before it are never written again.
//!
//! Never: decides what is part of the log.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use myelin_identity::log::{Hash, Resource, TILE_WIDTH, Tile, decode_bundle, hashes_of_tile};

use super::LogError;

/// The log's directory in the data directory.
pub const DIRECTORY: &str = "log";
/// Largest file: a bundle of 256 entries of the largest certificate that is accepted (8 KiB).
const MAX_FILE_BYTES: u64 = 256 * (8 * 1024 + 64);

const NOT_WHOLE: &str = "its end is cut off, or it is no such file";
const SHORT: &str = "it is too short";

#[derive(Clone, Debug)]
pub(super) struct Disk {
    directory: PathBuf,
}

impl Disk {
    pub(super) fn at(data: &Path) -> Self {
        Self { directory: data.join(DIRECTORY) }
    }

    fn path(&self, resource: Resource) -> PathBuf {
        self.directory.join(resource.to_string())
    }

    /// A file's bytes; `None` if it is not there.
    pub(super) fn read(&self, resource: Resource) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(resource)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "larger than any file of a log",
            ));
        }
        Ok(Some(bytes))
    }

    /// The hashes of a tile that the log must have, as many as it says.
    pub(super) fn tile(&self, tile: Tile) -> Result<Vec<Hash>, LogError> {
        let resource = Resource::Hashes(tile);
        let whole = Resource::Hashes(Tile { width: TILE_WIDTH, ..tile });
        let bytes = self.partial_or_whole(resource, whole)?;
        let hashes = hashes_of_tile(&bytes).ok_or_else(|| damaged(resource, NOT_WHOLE))?;
        hashes
            .get(..usize::from(tile.width))
            .map(<[_]>::to_vec)
            .ok_or_else(|| damaged(resource, SHORT))
    }

    /// The entries of a bundle that the log must have, as many as it says.
    pub(super) fn entries(&self, index: u64, width: u16) -> Result<Vec<Bytes>, LogError> {
        let resource = Resource::Entries { index, width };
        let whole = Resource::Entries { index, width: TILE_WIDTH };
        let bytes = self.partial_or_whole(resource, whole)?;
        let entries = decode_bundle(&bytes).ok_or_else(|| damaged(resource, NOT_WHOLE))?;
        let entries = entries.get(..usize::from(width)).ok_or_else(|| damaged(resource, SHORT))?;
        Ok(entries.iter().map(|entry| Bytes::copy_from_slice(entry)).collect())
    }

    /// A partial file goes when the whole one is there, which begins with the same bytes.
    fn partial_or_whole(&self, partial: Resource, whole: Resource) -> Result<Vec<u8>, LogError> {
        let bytes = match self.read(partial) {
            Ok(None) => self.read(whole),
            read => read,
        };
        let bytes = bytes.map_err(|error| damaged(partial, &error.to_string()))?;
        bytes.ok_or_else(|| damaged(partial, "it is not there"))
    }

    /// Writes files so that they are there, whole, when this returns.
    pub(super) fn write(&self, files: &[(Resource, Vec<u8>)]) -> io::Result<()> {
        let mut changed = BTreeSet::new();
        for (resource, bytes) in files {
            let path = self.path(*resource);
            let parent = path.parent().unwrap_or(&self.directory);
            make(parent, &mut changed)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            changed.insert(parent.to_owned());
        }
        changed.iter().try_for_each(|directory| File::open(directory)?.sync_all())
    }

    /// Puts the signed note where static servers look for it. The journal's head says the same, so
    /// it need not be durable.
    pub(super) fn publish(&self, note: &[u8]) -> io::Result<()> {
        make(&self.directory, &mut BTreeSet::new())?;
        let fresh = self.directory.join("checkpoint.new");
        fs::write(&fresh, note)?;
        fs::rename(fresh, self.path(Resource::Checkpoint))
    }

    /// Removes the partial files of what is full now. If that fails they cost room, nothing else.
    pub(super) fn forget_partials(&self, files: &[Resource]) {
        let full = files.iter().filter(|resource| match resource {
            Resource::Hashes(tile) => tile.width == TILE_WIDTH,
            Resource::Entries { width, .. } => *width == TILE_WIDTH,
            Resource::Checkpoint => false,
        });
        for resource in full {
            let partials = self.directory.join(format!("{resource}.p"));
            if let Err(error) = fs::remove_dir_all(&partials)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, path = %partials.display(), "partial tiles stay behind");
            }
        }
    }
}

fn damaged(what: Resource, why: &str) -> LogError {
    LogError::Damaged { what: what.to_string(), why: why.to_owned() }
}

/// Makes a directory and those above it; says which ones have a new name in them.
fn make(directory: &Path, changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().ok_or(io::ErrorKind::NotFound)?;
    make(above, changed)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => {
            changed.insert(above.to_owned());
            Ok(())
        }
    }
}
