//! What a run of the monitor remembers for the next: the newest signed checkpoint of every log that it
//! has read and who showed it, in one file. Called by `monitor`.
//! Never: a checkpoint that does not read as signed by its log.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use myelin_identity::log::{Checkpoint, LogKey};
use serde::{Deserialize, Serialize};

use super::reader::State;

#[derive(Serialize, Deserialize)]
struct Kept {
    log: String,
    note: String,
    /// Files of earlier releases have none.
    #[serde(default)]
    url: Option<String>,
}

pub(super) fn recall(path: &Path) -> Result<HashMap<LogKey, State>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let what = || format!("{} is no state file of `myelin log monitor`", path.display());
    let kept: Vec<Kept> = serde_json::from_slice(&bytes).with_context(what)?;
    kept.into_iter().map(|kept| read(kept).with_context(what)).collect()
}

pub(super) fn keep<'s>(
    path: &Path,
    states: impl Iterator<Item = (&'s LogKey, &'s State)>,
) -> Result<()> {
    let kept = states.map(|(log, state)| Kept {
        log: log.to_string(),
        note: String::from_utf8_lossy(&state.note).into_owned(),
        url: state.url.clone(),
    });
    let bytes = serde_json::to_vec_pretty(&kept.collect::<Vec<_>>())?;
    let fresh = path.with_extension("new");
    let written = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn read(kept: Kept) -> Result<(LogKey, State)> {
    let log: LogKey = kept.log.parse()?;
    let Checkpoint { size, root, .. } = Checkpoint::open(kept.note.as_bytes(), &log)?;
    Ok((log, State { size, root, note: kept.note.into_bytes(), url: kept.url }))
}
