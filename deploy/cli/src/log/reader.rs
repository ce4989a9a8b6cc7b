//! One log read whole, entry by entry, and followed as it grows: every entry is hashed into the tree
//! that a signed checkpoint states, so that nothing can be left out or changed. Called by `monitor`.
//! Never: hands out an entry of a tree whose root was not signed by the log's key.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use anyhow::{Context, Result, ensure};
use myelin_identity::log::{
    Checkpoint, Frontier, Hash, LogKey, MAX_NOTE_BYTES, Resource, TILE_WIDTH, decode_bundle,
    leaf_hash,
};

use super::fetch::Server;

/// A bundle of entries: a version byte, the issuer's hash and a certificate of at most 8 KiB each.
const MAX_BUNDLE_BYTES: usize = TILE_WIDTH as usize * (2 + 33 + 8 * 1024);

/// The log contradicts itself, or what it said before: somebody has signed two histories, or the
/// server shows another one than was signed.
#[derive(Debug)]
pub(super) struct Contradiction(String);

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Contradiction {}

impl Contradiction {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A signed state that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) size: u64,
    pub(super) root: Hash,
    pub(super) note: Vec<u8>,
}

/// One log, read so far.
pub(super) struct Reader {
    pub(super) log: LogKey,
    frontier: Frontier,
    /// What an earlier run has read up to; it must turn out to be a part of this history.
    before: Option<State>,
    /// The newest state that was read whole.
    pub(super) now: Option<State>,
}

impl Reader {
    pub(super) fn new(log: LogKey, before: Option<State>) -> Self {
        Self { log, frontier: Frontier::default(), before, now: None }
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Reads what has been added since the last time and hands each entry out with its index.
    /// `progress` hears of entries read and of how many there are.
    pub(super) async fn advance(
        &mut self,
        server: &mut Server,
        mut entry: impl FnMut(u64, &[u8]),
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let name = self.log.name().to_owned();
        let note = server.get(&path_of(&self.log, Resource::Checkpoint), MAX_NOTE_BYTES).await?;
        let checkpoint = Checkpoint::open(&note, &self.log)
            .with_context(|| format!("the checkpoint of log {name} as served"))?;
        let Checkpoint { size, root, .. } = checkpoint;
        self.is_no_step_back(size, &root)?;
        let mut read = Vec::new();
        while self.frontier.size() < size {
            let at = self.frontier.size();
            let bundle = self.bundle(server, at, size).await?;
            let entries = decode_bundle(&bundle)
                .with_context(|| format!("the entries from {at} of log {name} do not read"))?;
            let known = usize::try_from(at % u64::from(TILE_WIDTH))?;
            ensure!(entries.len() > known, "log {name} served too few entries from {at}");
            for bytes in &entries[known..] {
                read.push(bytes.to_vec());
                self.frontier.append(leaf_hash(bytes));
                self.compare_with_before()?;
            }
            progress(self.frontier.size(), size);
        }
        if self.frontier.root() != root {
            return Err(Contradiction::new(format!(
                "the entries that the server shows for log {name} are not those of its signed \
                 checkpoint of {size}; an entry was changed, or there are two histories"
            ))
            .into());
        }
        let first = size - read.len() as u64;
        read.iter().enumerate().for_each(|(nth, bytes)| entry(first + nth as u64, bytes));
        self.now = Some(State { size, root, note });
        Ok(())
    }

    async fn bundle(&self, server: &mut Server, at: u64, size: u64) -> Result<Vec<u8>> {
        let full = u64::from(TILE_WIDTH);
        let index = at / full;
        let width = u16::try_from((size - index * full).min(full))?;
        let path = path_of(&self.log, Resource::Entries { index, width });
        server.get(&path, MAX_BUNDLE_BYTES).await
    }

    fn is_no_step_back(&self, size: u64, root: &Hash) -> Result<(), Contradiction> {
        let name = self.log.name();
        for known in self.before.iter().chain(&self.now) {
            if size < known.size {
                return Err(Contradiction::new(format!(
                    "log {name} had {} entries and now shows {size}; a log never shrinks",
                    known.size
                )));
            }
            if size == known.size && *root != known.root {
                return Err(Contradiction::new(format!(
                    "log {name} has signed two roots for {size} entries: {} and {root}",
                    known.root
                )));
            }
        }
        Ok(())
    }

    fn compare_with_before(&mut self) -> Result<(), Contradiction> {
        let Some(before) = self.before.take_if(|before| before.size == self.frontier.size()) else {
            return Ok(());
        };
        if self.frontier.root() == before.root {
            return Ok(());
        }
        Err(Contradiction::new(format!(
            "the first {} entries of log {} are not those that it signed before: it has two \
             histories",
            before.size,
            self.log.name()
        )))
    }
}

/// Where the CA serves a resource of one of its logs: its own and the root's have a place each.
fn path_of(log: &LogKey, resource: Resource) -> String {
    let place = if log.name().contains("/root-log/") { "root-log" } else { "log" };
    format!("/{place}/{resource}")
}
