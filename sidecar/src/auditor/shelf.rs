//! What survives a restart: the newest checkpoint that was compared of each log, and the evidence of
//! forks, in a directory of their own. Called by `auditor`.
//!
//! Never: removes evidence; passes over in silence what it cannot read.

// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use myelin_identity::log::Checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Histories;
use super::ledger::MAX_LOGS;
use crate::credentials::{Secrecy, StateDir, StateError};
use crate::proofs::{Fork, LogKey, Seen, Suspect};

const CHECKPOINTS: &str = "checkpoints.json";
/// Files of evidence that are read at start: a log has one, or a few.
const MAX_EVIDENCE: usize = 256;
/// Evidence of a fork: `fork-<key id>-<seconds>.json`.
const FORK: &str = "fork-";

/// One checkpoint as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    log: String,
    note: String,
}

/// Of a file of evidence, what a start needs.
#[derive(Deserialize)]
struct Evidence {
    log: String,
}

pub(super) struct Shelf {
    state: StateDir,
    path: PathBuf,
}

impl Shelf {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        Ok(Self { state: StateDir::open(path)?, path: path.to_owned() })
    }

    /// Everything that was kept and still reads as signed by its log.
    pub(super) fn checkpoints(&self) -> Vec<Seen> {
        let bytes = match self.state.read(CHECKPOINTS, Secrecy::Public) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::error!("checkpoints of an earlier run are lost: {error}");
                return Vec::new();
            }
        };
        if bytes.is_empty() {
            return Vec::new();
        }
        let kept = serde_json::from_slice(&bytes).unwrap_or_else(|why| {
            tracing::error!("checkpoints of an earlier run are lost: {CHECKPOINTS}: {why}");
            Vec::<Kept>::new()
        });
        let read = |kept: Kept| {
            let log = kept.log.clone();
            let seen = read(kept);
            if seen.is_none() {
                tracing::error!(
                    log,
                    "the checkpoint of an earlier run is lost: it does not verify"
                );
            }
            seen
        };
        kept.into_iter().take(MAX_LOGS).filter_map(read).collect()
    }

    pub(super) fn keep<'s>(&self, seen: impl Iterator<Item = &'s Seen>) -> Result<(), StateError> {
        let kept: Vec<Kept> = seen.map(kept).collect();
        let bytes = serde_json::to_vec_pretty(&kept).expect("texts are JSON");
        self.state.write(CHECKPOINTS, &bytes, Secrecy::Public)
    }

    /// Logs of which evidence lies here. A file that cannot be read is evidence as well: of the log
    /// whose key its name gives the id of.
    pub(super) fn forks(&self) -> Vec<Fork> {
        let files = match std::fs::read_dir(&self.path) {
            Ok(files) => files,
            Err(error) => {
                let path = self.path.display();
                tracing::error!("evidence of forks in {path} is not looked at: {error}");
                return Vec::new();
            }
        };
        let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with(FORK) && name.ends_with(".json")).collect();
        names.sort();
        if names.len() > MAX_EVIDENCE {
            tracing::error!("of {} files of evidence {MAX_EVIDENCE} are read", names.len());
        }
        names.iter().take(MAX_EVIDENCE).filter_map(|name| self.fork(name)).collect()
    }

    fn fork(&self, name: &str) -> Option<Fork> {
        let evidence = self.state.file(name).display().to_string();
        let why = match self.state.read(name, Secrecy::Public) {
            Ok(bytes) => match log_of(&bytes?) {
                Ok(log) => return Some(Fork { log: Suspect::Log(log), evidence }),
                Err(why) => why,
            },
            Err(error) => error.to_string(),
        };
        let id = name.strip_prefix(FORK).and_then(|rest| rest.split_once('-'));
        let id = id.and_then(|(id, _)| u32::from_str_radix(id, 16).ok());
        match id {
            Some(id) => {
                tracing::error!(evidence, "evidence of a fork cannot be read, and counts: {why}");
                Some(Fork { log: Suspect::KeyId(id.to_be_bytes()), evidence })
            }
            None => {
                tracing::error!(evidence, "of which log this is evidence cannot be read: {why}");
                None
            }
        }
    }

    /// Both signed notes, and the tiles that show what the second one's history says of the first.
    pub(super) fn keep_fork(&self, fork: &Histories, now: u64) -> Result<String, StateError> {
        let Histories { first, second, tiles } = fork;
        let id = u32::from_be_bytes(first.log.as_note_key().id());
        let name = format!("{FORK}{id:08x}-{now}.json");
        let tiles: serde_json::Map<_, _> = tiles
            .iter()
            .map(|(path, bytes)| (path.clone(), STANDARD.encode(bytes).into()))
            .collect();
        let evidence = json!({
            "log": first.log.to_string(),
            "found_at": now,
            "first": String::from_utf8_lossy(&first.note),
            "second": String::from_utf8_lossy(&second.note),
            "tiles_of_second": tiles,
        });
        let bytes = serde_json::to_vec_pretty(&evidence).expect("texts are JSON");
        self.state.write(&name, &bytes, Secrecy::Public)?;
        Ok(self.state.file(&name).display().to_string())
    }
}

fn log_of(evidence: &[u8]) -> Result<LogKey, String> {
    let Evidence { log } = serde_json::from_slice(evidence).map_err(|why| why.to_string())?;
    log.parse().map_err(|why: <LogKey as std::str::FromStr>::Err| why.to_string())
}

fn kept(seen: &Seen) -> Kept {
    let note = String::from_utf8_lossy(&seen.note).into_owned();
    Kept { log: seen.log.to_string(), note }
}

fn read(kept: Kept) -> Option<Seen> {
    let log: LogKey = kept.log.parse().ok()?;
    let Checkpoint { size, root, .. } = Checkpoint::open(kept.note.as_bytes(), &log).ok()?;
    Some(Seen { log, size, root, note: kept.note.into_bytes() })
}
