//! The servers that are asked, and which of them shows a log: every CA replica shows its own and the
//! root's, a static copy whatever was copied. Called by `monitor`.
//! Never: goes by a server's name or place; a log is where a checkpoint opens with its key.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Error, Result, bail};
use myelin_identity::log::{
    Checkpoint, CheckpointError, LogKey, MAX_NOTE_BYTES, NoteError, Resource,
};

use super::fetch::{Answer, Server};
use super::reader::Contradiction;

/// Sixteen roots in PEM.
const MAX_BUNDLE_BYTES: usize = 256 * 1024;

pub(super) struct Servers(Vec<Server>);

/// The checkpoints of one look around.
#[derive(Default)]
pub(super) struct Survey {
    notes: Vec<Note>,
    /// Servers that could not be reached: they are not waited for twice.
    down: Vec<usize>,
}

struct Note {
    server: usize,
    place: Place,
    bytes: Vec<u8>,
}

/// Where a server has a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The log of issuers that a root names.
    Root,
    /// The log of what a replica has issued.
    Issuer,
}

/// A signed state of a log, and the server that has the entries to it.
pub(super) struct Shown<'s> {
    pub(super) server: &'s mut Server,
    pub(super) place: Place,
    pub(super) checkpoint: Checkpoint,
    pub(super) note: Vec<u8>,
    /// What other servers show of the same log, no newer than that.
    pub(super) older: Vec<Checkpoint>,
}

impl Place {
    pub(super) fn path_of(self, resource: Resource) -> String {
        match self {
            Self::Root => format!("/root-log/{resource}"),
            Self::Issuer => format!("/log/{resource}"),
        }
    }
}

impl Servers {
    pub(super) fn new(urls: &[String]) -> Result<Self> {
        urls.iter().map(|url| Server::new(url)).collect::<Result<_>>().map(Self)
    }

    /// The trust bundle of the first that has one, as PEM.
    pub(super) async fn bundle(&mut self) -> Result<String> {
        let mut last = None;
        for server in &mut self.0 {
            match server.body("/bundle.pem", MAX_BUNDLE_BYTES).await {
                Ok(pem) => return String::from_utf8(pem).context("the /bundle.pem is no text"),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no server was named")))
    }

    /// Asks every server for the checkpoint at `place`; what could not be read comes back.
    pub(super) async fn survey(&mut self, survey: &mut Survey, place: Place) -> Vec<Error> {
        let path = place.path_of(Resource::Checkpoint);
        let mut unread = Vec::new();
        for (server, asked) in self.0.iter_mut().enumerate() {
            if survey.down.contains(&server) {
                continue;
            }
            match asked.get(&path, MAX_NOTE_BYTES).await {
                Ok(Answer::Body(bytes)) => survey.notes.push(Note { server, place, bytes }),
                // A copy need not have both.
                Ok(Answer::Refusal(hyper::StatusCode::NOT_FOUND)) => {}
                Ok(Answer::Refusal(status)) => {
                    unread.push(anyhow::anyhow!("{}{path} answered {status}", asked.url()));
                }
                Err(error) => {
                    survey.down.push(server);
                    unread.push(error);
                }
            }
        }
        unread
    }

    /// The newest state of `log` that a server shows, with the older ones that others do.
    pub(super) fn showing(&mut self, survey: &Survey, log: &LogKey) -> Result<Shown<'_>> {
        let mut states: Vec<(&Note, Checkpoint)> = Vec::new();
        let mut wrong = String::new();
        for note in &survey.notes {
            match Checkpoint::open(&note.bytes, log) {
                Ok(checkpoint) => states.push((note, checkpoint)),
                Err(CheckpointError::Note(NoteError::NotSigned)) => {}
                Err(error) => {
                    let url = self.0[note.server].url();
                    wrong.push_str(&format!("; {url}: {error}"));
                }
            }
        }
        states.sort_by_key(|(_, checkpoint)| checkpoint.size);
        let Some((note, checkpoint)) = states.pop() else {
            let asked: Vec<&str> = self.0.iter().map(Server::url).collect();
            bail!(
                "no server shows log {} (asked: {}); name its replica, or a copy of its files, with \
                 one more --url{wrong}",
                log.name(),
                asked.join(", ")
            );
        };
        let older: Vec<Checkpoint> = states.into_iter().map(|(_, checkpoint)| checkpoint).collect();
        let mut same = older.iter().filter(|it| it.size == checkpoint.size);
        if let Some(other) = same.find(|it| it.root != checkpoint.root) {
            return Err(Contradiction::two_roots(log, other, &checkpoint.root).into());
        }
        let (place, bytes) = (note.place, note.bytes.clone());
        Ok(Shown { server: &mut self.0[note.server], place, checkpoint, note: bytes, older })
    }
}
