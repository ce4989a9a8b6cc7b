//! Replays a whole issuing log: every entry against its tile, every tile against the journal's head,
//! the journal's certificates against their places. Called by `myelin-ca log verify`, on a store
//! that no server holds.
//!
//! Never: writes, or stops at what it can name.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::log::{
    Checkpoint, Entry, Frontier, Hash, LogKey, Resource, TILE_WIDTH, Tile, leaf_hash,
};

use super::disk::Disk;
use super::key::{Key, Which};
use super::{LogError, hex, root};
use crate::clock::UnixSeconds;
use crate::journal::{Hex, IssuedRecord, Journal, LogHeadRecord};
use crate::replica::ReplicaId;

/// Damages that are named before the rest is only counted.
const MAX_NAMED: usize = 20;

/// How far a replay is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub done: u64,
    pub of: u64,
}

/// What a replay found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Findings {
    pub origin: String,
    pub entries: u64,
    pub root: String,
    /// Certificates that the journal knows (it forgets them a week after their end) and that are
    /// where it says.
    pub certificates: u64,
    /// Unexpired entries that the journal does not know: a crash or a conflict came between the
    /// log and the journal, and nobody was handed these certificates by this CA.
    pub unclaimed: u64,
    pub intermediates: u64,
    /// One line each, at most [`MAX_NAMED`]; empty: the log is whole.
    pub damages: Vec<String>,
    pub more_damages: u64,
}

impl Findings {
    fn damage(&mut self, what: impl std::fmt::Display, why: impl std::fmt::Display) {
        if self.damages.len() < MAX_NAMED {
            self.damages.push(format!("{what}: {why}"));
        } else {
            self.more_damages += 1;
        }
    }
}

struct Claim {
    serial: String,
    leaf_sha256: Hex,
}

/// Replays the log in this data directory. Errors are what keeps it from looking; damages are in
/// the findings.
pub async fn verify(
    data: &Path,
    journal: &Journal,
    replica: &ReplicaId,
    now: UnixSeconds,
    mut tell: impl FnMut(Progress),
) -> Result<Findings, LogError> {
    let disk = Disk::at(data);
    let Some(log) = Key::public(journal, Which::Issuing(replica)).await? else {
        let why = "the store has no log; start the server once".to_owned();
        return Err(LogError::Damaged { what: "journal".to_owned(), why });
    };
    let head = journal.read::<LogHeadRecord>(&Which::Issuing(replica).name()).await?;
    let (size, root) = head.map_or_else(
        || (0, hex(&myelin_identity::log::empty_root())),
        |head| (head.record.size, head.record.root),
    );
    let mut findings =
        Findings { origin: log.name().to_owned(), entries: size, ..Findings::default() };
    let mut claims = claims(journal, replica, &mut findings, size).await?;
    let mut replay = Replay { disk: &disk, size, frontier: Frontier::default(), rows: Vec::new() };
    let mut index = 0;
    while index * u64::from(TILE_WIDTH) < size {
        replay.bundle(index, &mut claims, now, &mut findings);
        index += 1;
        tell(Progress { done: (index * u64::from(TILE_WIDTH)).min(size), of: size });
    }
    findings.root = replay.frontier.root().to_string();
    if hex(&replay.frontier.root()) != root {
        findings.damage(
            "journal",
            format!("its head at {size} entries has another root than the entries make"),
        );
    }
    replay.tiles_above(&mut findings);
    for (index, claim) in claims {
        findings.damage(
            format!("journal, certificate {}", claim.serial),
            format!("it should be entry {index}, and is not"),
        );
    }
    checkpoint(&disk, &log, &replay, &mut findings);
    match root::verify(journal).await {
        Ok(intermediates) => findings.intermediates = intermediates,
        Err(LogError::Damaged { what, why }) => findings.damage(what, why),
        Err(error) => return Err(error),
    }
    Ok(findings)
}

/// The journal's certificates by their place.
async fn claims(
    journal: &Journal,
    replica: &ReplicaId,
    findings: &mut Findings,
    size: u64,
) -> Result<HashMap<u64, Claim>, LogError> {
    let mut claims = HashMap::new();
    for issued in journal.all::<IssuedRecord>().await? {
        let serial = issued.key.trim_start_matches("issued/").to_owned();
        let Some(place) = issued.record.logged.filter(|place| place.replica == replica.to_string())
        else {
            continue;
        };
        let index = place.index;
        if index >= size {
            findings.damage(
                format!("journal, certificate {serial}"),
                format!("it should be entry {index}, but the log has {size}"),
            );
            continue;
        }
        let claim = Claim { serial: serial.clone(), leaf_sha256: issued.record.leaf_sha256 };
        if let Some(other) = claims.insert(index, claim) {
            findings.damage(
                format!("journal, certificate {serial}"),
                format!("it and certificate {} claim one entry {index}", other.serial),
            );
        }
    }
    Ok(claims)
}

struct Replay<'a> {
    disk: &'a Disk,
    size: u64,
    frontier: Frontier,
    /// Hashes of each tile level above 0, as the entries make them.
    rows: Vec<Vec<Hash>>,
}

impl Replay<'_> {
    fn bundle(
        &mut self,
        index: u64,
        claims: &mut HashMap<u64, Claim>,
        now: UnixSeconds,
        findings: &mut Findings,
    ) {
        let first = index * u64::from(TILE_WIDTH);
        let width = (self.size - first).min(u64::from(TILE_WIDTH)) as u16;
        let resource = Resource::Entries { index, width };
        let tile = Tile { level: 0, index, width };
        let hashes = match self.disk.tile(tile) {
            Ok(hashes) => hashes,
            Err(error) => {
                findings.damage(tile, why(error));
                Vec::new()
            }
        };
        let entries = match self.disk.entries(index, width) {
            Ok(entries) => entries,
            Err(error) => {
                findings.damage(resource, why(error));
                // The tile goes on for it, so that one damage is one damage.
                hashes.iter().for_each(|hash| self.append(*hash));
                (first..first + u64::from(width)).for_each(|at| drop(claims.remove(&at)));
                return;
            }
        };
        for (at, entry) in (first..).zip(&entries) {
            let hash = leaf_hash(entry);
            self.append(hash);
            if hashes.get((at - first) as usize).is_some_and(|said| *said != hash) {
                findings.damage(resource, format!("entry {at} is not the one of {tile}"));
            }
            match Entry::parse(entry) {
                Ok(entry) => claimed(at, entry.certificate, claims, now, findings),
                Err(why) => findings.damage(resource, format!("entry {at}: {why}")),
            }
        }
    }

    fn append(&mut self, leaf: Hash) {
        for (node, hash) in self.frontier.append(leaf) {
            if node.level > 0 && node.level % 8 == 0 {
                let level = usize::from(node.level / 8) - 1;
                if self.rows.len() <= level {
                    self.rows.push(Vec::new());
                }
                self.rows[level].push(hash);
            }
        }
    }

    /// Compares the tiles above level 0 with what the entries make of them.
    fn tiles_above(&self, findings: &mut Findings) {
        for (level, row) in (1..).zip(&self.rows) {
            for (index, made) in (0..).zip(row.chunks(usize::from(TILE_WIDTH))) {
                let tile = Tile { level, index, width: made.len() as u16 };
                match self.disk.tile(tile) {
                    Ok(hashes) if hashes == made => {}
                    Ok(_) => findings.damage(tile, "its hashes are not those of the tiles below"),
                    Err(error) => findings.damage(tile, why(error)),
                }
            }
        }
    }
}

/// What is wrong, where a line says already with what.
fn why(error: LogError) -> String {
    match error {
        LogError::Damaged { why, .. } => why,
        other => other.to_string(),
    }
}

fn claimed(
    index: u64,
    certificate: &[u8],
    claims: &mut HashMap<u64, Claim>,
    now: UnixSeconds,
    findings: &mut Findings,
) {
    match claims.remove(&index) {
        Some(claim) if claim.leaf_sha256.0 == digest(&SHA256, certificate).as_ref() => {
            findings.certificates += 1;
        }
        Some(claim) => findings.damage(
            format!("journal, certificate {}", claim.serial),
            format!("entry {index} is another certificate"),
        ),
        None => {
            let ends = x509_parser::parse_x509_certificate(certificate)
                .map_or(0, |(_, parsed)| parsed.validity().not_after.timestamp());
            if u64::try_from(ends).unwrap_or(0) > now {
                findings.unclaimed += 1;
            }
        }
    }
}

/// The file that static servers would show: signed by this log, and not beyond the journal.
fn checkpoint(disk: &Disk, log: &LogKey, replay: &Replay<'_>, findings: &mut Findings) {
    let read = match disk.read(Resource::Checkpoint) {
        Ok(Some(note)) => Checkpoint::open(&note, log).map_err(|error| error.to_string()),
        Ok(None) => Err("it is not there".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match read {
        Err(why) => findings.damage("checkpoint", why),
        Ok(found) if found.size > replay.size => {
            findings.damage("checkpoint", "it is of a larger log than the journal knows");
        }
        Ok(found) if found.size == replay.size && found.root != replay.frontier.root() => {
            findings.damage("checkpoint", "its root is not the one that the entries make");
        }
        Ok(_) => {}
    }
}
