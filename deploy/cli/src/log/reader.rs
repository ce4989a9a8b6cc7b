//! One log read whole, entry by entry, and followed as it grows: every entry is hashed into the tree
//! that a signed checkpoint states, so that nothing can be left out or changed. Called by `monitor`.
//! Never: keeps an entry, or goes on from a tree whose root was not signed by the log's key.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use hyper::StatusCode;
use myelin_identity::log::{
    Checkpoint, Frontier, Hash, LogKey, Resource, TILE_WIDTH, decode_bundle, leaf_hash,
};

use super::fetch::{Answer, Server};
use super::servers::{Place, Shown};

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

    pub(super) fn two_roots(log: &LogKey, known: &Checkpoint, root: &Hash) -> Self {
        let Checkpoint { size, root: known, .. } = known;
        let log = log.name();
        Self(format!("log {log} has signed two roots for {size} entries: {known} and {root}"))
    }
}

/// A signed state that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) size: u64,
    pub(super) root: Hash,
    pub(super) note: Vec<u8>,
    /// The server that showed it, if it is known.
    pub(super) url: Option<String>,
}

/// One log, read so far.
pub(super) struct Reader {
    pub(super) log: LogKey,
    /// Of all that was read below a signed root.
    frontier: Frontier,
    /// What an earlier run has read up to; it must turn out to be a part of this history.
    before: Option<State>,
    /// The newest state that was read whole.
    now: Option<State>,
}

impl Reader {
    pub(super) fn new(log: LogKey, before: Option<State>) -> Self {
        Self { log, frontier: Frontier::default(), before, now: None }
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The newest state that is known, be it from an earlier run.
    pub(super) fn state(&self) -> Option<&State> {
        self.now.as_ref().or(self.before.as_ref())
    }

    /// Reads what has been added since the last time. `entry` gets each entry with its index while the
    /// tree is hashed: what it makes of them counts only once this has come to a good end. After an
    /// error the next call hands out the same entries again. `progress` hears of entries read and of
    /// how many there are.
    pub(super) async fn advance(
        &mut self,
        shown: Shown<'_>,
        mut entry: impl FnMut(u64, &[u8]),
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let name = self.log.name();
        let Shown { server, place, checkpoint, note, older } = shown;
        self.is_no_step_back(&checkpoint, server.url())?;
        let Checkpoint { size, root, .. } = checkpoint;
        let mut frontier = self.frontier.clone();
        while frontier.size() < size {
            let at = frontier.size();
            let full = u64::from(TILE_WIDTH);
            let (index, known) = (at / full, usize::try_from(at % full)?);
            let width = u16::try_from((size - index * full).min(full))?;
            let bundle = bundle(server, place, index, width).await?;
            let entries = decode_bundle(&bundle)
                .with_context(|| format!("the entries from {at} of log {name} do not read"))?;
            let new = entries.get(known..usize::from(width));
            let new = new.with_context(|| format!("log {name}: too few entries from {at}"))?;
            for bytes in new {
                entry(frontier.size(), bytes);
                frontier.append(leaf_hash(bytes));
                self.compare_with(self.before.as_ref().map(|it| (it.size, it.root)), &frontier)?;
                self.compare_with(older.iter().map(|it| (it.size, it.root)), &frontier)?;
            }
            progress(frontier.size(), size);
        }
        if frontier.root() != root {
            return Err(Contradiction::new(format!(
                "the entries that the server shows for log {name} are not those of its signed \
                 checkpoint of {size}; an entry was changed, or there are two histories"
            ))
            .into());
        }
        self.frontier = frontier;
        self.now = Some(State { size, root, note, url: Some(server.url().to_owned()) });
        Ok(())
    }

    fn is_no_step_back(&self, shown: &Checkpoint, url: &str) -> Result<()> {
        let name = self.log.name();
        for known in self.before.iter().chain(&self.now) {
            let Checkpoint { size, root, .. } = shown;
            if *size < known.size {
                let what =
                    format!("log {name} had {} entries and now shows {size} at {url}", known.size);
                let is_other = known.url.as_deref().is_some_and(|known| known != url);
                ensure!(!is_other, "{what}: a copy that is behind, or its other server cut it");
                bail!(Contradiction::new(format!("{what}; a log never shrinks")));
            }
            if *size == known.size && *root != known.root {
                let origin = name.to_owned();
                let known = Checkpoint { origin, size: known.size, root: known.root };
                bail!(Contradiction::two_roots(&self.log, &known, root));
            }
        }
        Ok(())
    }

    /// What was signed for the size that is read now must be the root of what was read.
    fn compare_with(
        &self,
        signed: impl IntoIterator<Item = (u64, Hash)>,
        read: &Frontier,
    ) -> Result<(), Contradiction> {
        let mut signed = signed.into_iter().filter(|(size, _)| *size == read.size());
        if signed.all(|(_, root)| root == read.root()) {
            return Ok(());
        }
        Err(Contradiction::new(format!(
            "the first {} entries of log {} are not those that it has signed once: it has two \
             histories",
            read.size(),
            self.log.name()
        )))
    }
}

/// The first `width` entries of a bundle, or the full one, which replaces those that were not.
async fn bundle(server: &mut Server, place: Place, index: u64, width: u16) -> Result<Vec<u8>> {
    let path = |width| place.path_of(Resource::Entries { index, width });
    match server.get(&path(width), MAX_BUNDLE_BYTES).await? {
        Answer::Body(bundle) => Ok(bundle),
        Answer::Refusal(StatusCode::NOT_FOUND) if width < TILE_WIDTH => {
            server.body(&path(TILE_WIDTH), MAX_BUNDLE_BYTES).await
        }
        Answer::Refusal(status) => bail!("{}{} answered {status}", server.url(), path(width)),
    }
}
