//! A served log as the crates want it: HTTP in, checkpoints and tiles out.
//!
//! Never: judges; that is the crates' part.

// SPDX-License-Identifier: Apache-2.0

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_identity::log::LogKey;
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, Error, Tile, TileReader};

/// A page that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(15);

/// The log below `prefix` of a CA's ops port.
#[derive(Clone)]
pub(crate) struct Served {
    address: SocketAddr,
    prefix: &'static str,
    key: String,
    /// Whether tiles arrive with one bit changed.
    changed: bool,
}

impl Served {
    pub(crate) fn new(ops: SocketAddr, prefix: &'static str, key: &LogKey) -> Self {
        let address = SocketAddr::new([127, 0, 0, 1].into(), ops.port());
        Self { address, prefix, key: key.to_string(), changed: false }
    }

    /// The same log behind somebody who changes tiles.
    pub(crate) fn changed(&self) -> Self {
        Self { changed: true, ..self.clone() }
    }

    /// The checkpoint, once `signed_note` has verified it.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        let (head, body) = self.fetch("checkpoint")?;
        ensure!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
        let note = Note::from_bytes(&body).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let verifier = StandardVerifier::new(&self.key).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let known = VerifierList::new(vec![Box::new(verifier)]);
        let (verified, _) = note.verify(&known).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        ensure!(verified.len() == 1);
        Checkpoint::from_bytes(note.text()).map_err(|_| anyhow::anyhow!("no checkpoint"))
    }

    /// All entries, bundle by bundle.
    pub(crate) fn entries(&self, size: u64) -> Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        for index in 0..size.div_ceil(256) {
            let width = (size - index * 256).min(256);
            let partial = if width < 256 { format!(".p/{width}") } else { String::new() };
            let (head, body) = self.fetch(&format!("tile/entries/{index:03}{partial}"))?;
            ensure!(head.contains("immutable"), "{head}");
            let mut rest = &body[..];
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                entries.push(after.get(..length).context("a cut entry")?.to_vec());
                rest = &after[length..];
            }
        }
        Ok(entries)
    }

    fn fetch(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let mut stream = TcpStream::connect_timeout(&self.address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let prefix = self.prefix;
        write!(stream, "GET {prefix}/{path} HTTP/1.1\r\nHost: log\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{path}: {head}");
        Ok((head, bytes.split_off(end + 4)))
    }
}

impl TileReader for Served {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let read = |tile: &Tile| {
            // The crate writes the tiles' height into the path; C2SP has one height only.
            let path = tile.path();
            let path =
                path.strip_prefix("tile/8/").map_or_else(|| path.clone(), |p| format!("tile/{p}"));
            let (_, mut bytes) = self.fetch(&path).map_err(|_| Error::IndexesNotInTree)?;
            if self.changed {
                bytes[40] ^= 1;
            }
            Ok(bytes)
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}
