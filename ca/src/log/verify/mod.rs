//! Replays a whole issuing log: every entry against its tile, every tile against the journal's head,
//! the journal's certificates against their places. Called by `myelin-ca log verify`, also while
//! the log grows.
//!
//! The order makes that possible: first the checkpoint, then the head, which it must not be beyond,
//! then the certificates, and then the head again. Files before the first head are never written
//! again; a certificate between the two heads came meanwhile; one beyond the second is none.
//!
//! Never: writes, or stops at what it can name.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use myelin_identity::log::{Checkpoint, Entry, LogKey, Resource, TILE_WIDTH};

use super::disk::Disk;
use super::{LogError, hex};
use crate::clock::UnixSeconds;
use crate::journal::Hex;
use crate::replica::ReplicaId;

mod book;
mod certificate;
mod files;

pub use book::{About, Claim, Head, LogAnswer, LogAsk, Page, RootFound, Unrecorded, answer};

use certificate::Named;
use files::Replay;

/// Damages that are named before the rest is only counted, and entries without a record.
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
    /// Certificates that were issued while this looked, and so were not looked at.
    pub later: u64,
    /// Entries of the last moments that the journal does not know yet: they are being issued, or
    /// that failed a moment ago.
    pub under_way: u64,
    /// Unexpired entries that the journal does not know: a crash or a conflict came between the
    /// log and the journal, and nobody was handed these certificates by this CA.
    pub unclaimed: u64,
    /// One line for each of these, at most [`MAX_NAMED`].
    pub unclaimed_named: Vec<String>,
    pub intermediates: u64,
    /// One line each, at most [`MAX_NAMED`]; empty: the log is whole.
    pub damages: Vec<String>,
    pub more_damages: u64,
}

impl Findings {
    fn damage(&mut self, what: impl fmt::Display, why: impl fmt::Display) {
        if self.damages.len() < MAX_NAMED {
            self.damages.push(format!("{what}: {why}"));
        } else {
            self.more_damages += 1;
        }
    }

    fn unreadable(&mut self, keys: &[String]) {
        keys.iter().for_each(|key| self.damage(format!("journal, {key}"), "it cannot be read"));
    }

    fn damaged_certificate(&mut self, serial: &str, why: impl fmt::Display) {
        self.damage(format!("journal, certificate {serial}"), why);
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log {}", self.origin)?;
        writeln!(f, "{} entries, root {}", self.entries, self.root)?;
        writeln!(
            f,
            "{} certificates of the journal are where it says; {} unexpired entries were never handed out",
            self.certificates, self.unclaimed
        )?;
        if self.later + self.under_way > 0 {
            writeln!(
                f,
                "{} certificates came while this looked; {} entries of the last moments are on their way",
                self.later, self.under_way
            )?;
        }
        writeln!(f, "root's log: {} intermediates", self.intermediates)?;
        for entry in &self.unclaimed_named {
            writeln!(f, "never handed out: {entry}")?;
        }
        for damage in &self.damages {
            writeln!(f, "DAMAGED {damage}")?;
        }
        if self.more_damages > 0 {
            writeln!(f, "and {} more", self.more_damages)?;
        }
        if self.damages.is_empty() {
            writeln!(f, "whole")?;
        }
        Ok(())
    }
}

/// Replays the log in this data directory against what `ask` says of the journal. Errors are what
/// keeps it from looking; damages are in the findings.
pub async fn verify<E: From<LogError>>(
    data: &Path,
    replica: &ReplicaId,
    now: UnixSeconds,
    ask: impl AsyncFn(LogAsk) -> Result<LogAnswer, E>,
    mut tell: impl FnMut(Progress),
) -> Result<Findings, E> {
    let disk = Disk::at(data);
    let journal = Asking { ask, replica: replica.to_string() };
    let shown = disk.read(Resource::Checkpoint);
    let (log, head) = journal.head().await?;
    let shown = opened(shown, &log);
    let size = head.size;
    let mut findings =
        Findings { origin: log.name().to_owned(), entries: size, ..Findings::default() };
    let mut claims = journal.claims(&mut findings, size).await?;
    let mark = shown.as_ref().map_or(size, |shown| shown.size);
    let mut replay = Replay::new(&disk, size, mark);
    for index in 0..size.div_ceil(u64::from(TILE_WIDTH)) {
        let first = index * u64::from(TILE_WIDTH);
        let end = (first + u64::from(TILE_WIDTH)).min(size);
        if let Some(entries) = replay.bundle(index, &mut findings) {
            let unknown = claimed(first, &entries, &mut claims, &mut findings);
            journal.unclaimed(unknown, now, &mut findings).await?;
        } else {
            // One damage is one damage.
            (first..end).for_each(|at| drop(claims.remove(&at)));
        }
        tell(Progress { done: end, of: size });
    }
    findings.root = replay.frontier.root().to_string();
    if hex(&replay.frontier.root()) != head.root {
        findings.damage(
            "journal",
            format!("its head at {size} entries has another root than the entries make"),
        );
    }
    replay.tiles_above(&mut findings);
    for (index, claim) in claims {
        findings
            .damaged_certificate(&claim.serial, format!("it should be entry {index}, and is not"));
    }
    checkpoint(shown, &replay, size, &mut findings);
    journal.root_log(&mut findings).await?;
    journal.unrecorded(now, &mut findings).await?;
    Ok(findings)
}

/// The journal, by questions.
struct Asking<A> {
    ask: A,
    replica: String,
}

impl<A, E> Asking<A>
where
    A: AsyncFn(LogAsk) -> Result<LogAnswer, E>,
    E: From<LogError>,
{
    async fn about(&self, about: About) -> Result<LogAnswer, E> {
        (self.ask)(LogAsk { replica: self.replica.clone(), about }).await
    }

    async fn head(&self) -> Result<(LogKey, Head), E> {
        let LogAnswer::Head(head) = self.about(About::Head).await? else { return Err(other()) };
        let Some(head) = head else {
            let why = "the store has no log; start the server once".to_owned();
            return Err(LogError::Damaged { what: "journal".to_owned(), why }.into());
        };
        let log = head.key.parse::<LogKey>().map_err(|error| LogError::Damaged {
            what: "key record".to_owned(),
            why: error.to_string(),
        })?;
        Ok((log, head))
    }

    async fn page(&self, about: About) -> Result<Page<Claim>, E> {
        match self.about(about).await? {
            LogAnswer::Certificates(page) => Ok(page),
            _ => Err(other()),
        }
    }

    /// The journal's certificates by their place, those below `size`.
    async fn claims(&self, findings: &mut Findings, size: u64) -> Result<HashMap<u64, Claim>, E> {
        let (mut claims, mut beyond) = (HashMap::new(), Vec::new());
        let mut after = None;
        loop {
            let Page { found, next, unreadable } = self.page(About::Certificates(after)).await?;
            findings.unreadable(&unreadable);
            for claim in found {
                if claim.index >= size {
                    beyond.push(claim);
                    continue;
                }
                let (index, serial) = (claim.index, claim.serial.clone());
                if let Some(other) = claims.insert(index, claim) {
                    let why =
                        format!("it and certificate {} claim one entry {index}", other.serial);
                    findings.damaged_certificate(&serial, why);
                }
            }
            if next.is_none() {
                break;
            }
            after = next;
        }
        // A certificate is in the journal after the head that covers it.
        let (_, head) = self.head().await?;
        if head.size < size {
            let why = format!("its head was at {size} entries, and is at {}", head.size);
            findings.damage("journal", why);
        }
        for Claim { serial, index, .. } in beyond {
            if index < head.size {
                findings.later += 1;
            } else {
                let size = head.size;
                let why = format!("it should be entry {index}, but the log has {size}");
                findings.damaged_certificate(&serial, why);
            }
        }
        Ok(claims)
    }

    /// Entries that no claim was for: the journal may have come to know them since.
    async fn unclaimed(
        &self,
        unknown: Vec<Named>,
        now: UnixSeconds,
        findings: &mut Findings,
    ) -> Result<(), E> {
        let unknown: Vec<Named> = unknown.into_iter().filter(|it| it.lasts_at(now)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let serials = unknown.iter().map(|entry| entry.serial.clone()).collect();
        let known = self.page(About::Serials(serials)).await?.found;
        for entry in unknown {
            if let Some(claim) = known.iter().find(|claim| claim.serial == entry.serial) {
                settle(entry.index, claim, &entry.sha256, findings);
            } else if entry.is_young_at(now) {
                findings.under_way += 1;
            } else {
                findings.unclaimed += 1;
                if findings.unclaimed_named.len() < MAX_NAMED {
                    findings.unclaimed_named.push(entry.to_string());
                }
            }
        }
        Ok(())
    }

    async fn root_log(&self, findings: &mut Findings) -> Result<(), E> {
        let LogAnswer::Root(found) = self.about(About::Root).await? else { return Err(other()) };
        findings.intermediates = found.intermediates;
        if let Some((what, why)) = found.damage {
            findings.damage(what, why);
        }
        Ok(())
    }

    /// Certificates that addresses rest on: their records were removed, not forgotten.
    async fn unrecorded(&self, now: UnixSeconds, findings: &mut Findings) -> Result<(), E> {
        let mut after = None;
        loop {
            let answered = self.about(About::Unrecorded { after, now }).await?;
            let LogAnswer::Unrecorded(page) = answered else { return Err(other()) };
            findings.unreadable(&page.unreadable);
            for Unrecorded { serial, address } in page.found {
                let why = format!("it is in force at {address}, and its record is not there");
                findings.damaged_certificate(&serial, why);
            }
            if page.next.is_none() {
                return Ok(());
            }
            after = page.next;
        }
    }
}

fn other<E: From<LogError>>() -> E {
    LogError::OtherAnswer.into()
}

/// Takes the claims on these entries, and yields what nobody claims.
fn claimed(
    first: u64,
    entries: &[Bytes],
    claims: &mut HashMap<u64, Claim>,
    findings: &mut Findings,
) -> Vec<Named> {
    let mut unknown = Vec::new();
    for (index, entry) in (first..).zip(entries) {
        let certificate = match Entry::parse(entry) {
            Ok(entry) => entry.certificate,
            Err(why) => {
                findings.damage(format!("entry {index}"), why);
                continue;
            }
        };
        let sha256 = Hex(digest(&SHA256, certificate).as_ref().to_vec());
        match claims.remove(&index) {
            Some(claim) => settle(index, &claim, &sha256, findings),
            None => unknown.extend(Named::of(index, certificate, sha256)),
        }
    }
    unknown
}

fn settle(index: u64, claim: &Claim, sha256: &Hex, findings: &mut Findings) {
    if claim.index != index {
        let why = format!("it is entry {index}, the journal says {}", claim.index);
        findings.damaged_certificate(&claim.serial, why);
    } else if claim.leaf_sha256 == *sha256 {
        findings.certificates += 1;
    } else {
        findings
            .damaged_certificate(&claim.serial, format!("entry {index} is another certificate"));
    }
}

/// The file that static servers would show: it is signed by this log.
fn opened(read: std::io::Result<Option<Vec<u8>>>, log: &LogKey) -> Result<Checkpoint, String> {
    match read {
        Ok(Some(note)) => Checkpoint::open(&note, log).map_err(|error| error.to_string()),
        Ok(None) => Err("it is not there".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// It is of this history, and not beyond the journal.
fn checkpoint(
    shown: Result<Checkpoint, String>,
    replay: &Replay<'_>,
    size: u64,
    findings: &mut Findings,
) {
    match shown {
        Err(why) => findings.damage("checkpoint", why),
        Ok(shown) if shown.size > size => {
            findings.damage("checkpoint", "it is of a larger log than the journal knows");
        }
        Ok(shown) if replay.marked_root() != Some(shown.root) => {
            findings.damage("checkpoint", "its root is not the one that the entries make");
        }
        Ok(_) => {}
    }
}
