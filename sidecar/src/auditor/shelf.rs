//! What survives a restart: the newest proven checkpoint of each log, and the evidence of forks, in
//! a directory of their own. Called by `auditor`.
//!
//! Never: removes evidence.

// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use myelin_identity::log::Checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Fork;
use super::ledger::MAX_LOGS;
use crate::credentials::{Secrecy, StateDir, StateError};
use crate::proofs::{LogKey, Seen};

const CHECKPOINTS: &str = "checkpoints.json";
/// Files that are looked at for evidence at start.
const MAX_FILES: usize = 256;
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
        let kept: Vec<Kept> = serde_json::from_slice(&bytes).unwrap_or_default();
        kept.into_iter().take(MAX_LOGS).filter_map(read).collect()
    }

    pub(super) fn keep<'s>(&self, seen: impl Iterator<Item = &'s Seen>) -> Result<(), StateError> {
        let kept: Vec<Kept> = seen.map(kept).collect();
        let bytes = serde_json::to_vec_pretty(&kept).expect("texts are JSON");
        self.state.write(CHECKPOINTS, &bytes, Secrecy::Public)
    }

    /// Logs of which evidence lies here, and where.
    pub(super) fn forks(&self) -> Vec<(LogKey, String)> {
        let Ok(files) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let names =
            files.flatten().take(MAX_FILES).filter_map(|file| file.file_name().into_string().ok());
        let evidence = names.filter(|name| name.starts_with(FORK) && name.ends_with(".json"));
        let read = |name: String| {
            let bytes = self.state.read(&name, Secrecy::Public).ok()??;
            let evidence: Evidence = serde_json::from_slice(&bytes).ok()?;
            Some((evidence.log.parse().ok()?, self.state.file(&name).display().to_string()))
        };
        evidence.filter_map(read).collect()
    }

    /// Both signed notes, and the tiles that show what the second one's history says of the first.
    pub(super) fn keep_fork(&self, fork: &Fork, now: u64) -> Result<String, StateError> {
        let Fork { first, second, tiles } = fork;
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

fn kept(seen: &Seen) -> Kept {
    let note = String::from_utf8_lossy(&seen.note).into_owned();
    Kept { log: seen.log.to_string(), note }
}

fn read(kept: Kept) -> Option<Seen> {
    let log: LogKey = kept.log.parse().ok()?;
    let Checkpoint { size, root, .. } = Checkpoint::open(kept.note.as_bytes(), &log).ok()?;
    Some(Seen { log, size, root, note: kept.note.into_bytes() })
}
