//! What a replay asks of the journal, and the answers: from the store itself, or from a running
//! server through its admin socket. Lists come in pages, so that each answer is small.
//!
//! Never: writes, or judges: `verify` does.

// SPDX-License-Identifier: Apache-2.0

use serde::{Deserialize, Serialize};

use super::super::key::{Key, Which};
use super::super::{LogError, hex, root};
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressRecord, Entry, Found, Hex, IssuedRecord, Journal, LogHeadRecord, Readable, Record as _,
    shown,
};
use crate::replica::ReplicaId;
use crate::store::MAX_WRITES;

/// A question about one replica's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogAsk {
    pub replica: String,
    pub about: About,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    Head,
    /// The certificates of this log, those after this key.
    Certificates(Option<String>),
    /// Those of this log with these serials.
    Serials(Vec<String>),
    /// Certificates by which somebody is at an address now, and of which there is no record; those
    /// after this key.
    Unrecorded {
        after: Option<String>,
        now: UnixSeconds,
    },
    /// The root's log as a whole.
    Root,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAnswer {
    /// None: the store has no such log.
    Head(Option<Head>),
    Certificates(Page<Claim>),
    Unrecorded(Page<Unrecorded>),
    Root(RootFound),
}

/// How far the journal says that a log has grown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// As readers of signed notes take it.
    pub key: String,
    pub size: u64,
    pub root: Hex,
}

/// A part of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    pub found: Vec<T>,
    /// After which key to go on; none: this was the end.
    pub next: Option<String>,
    /// The keys, for people, of records that cannot be read.
    #[serde(default)]
    pub unreadable: Vec<String>,
}

/// A certificate that the journal knows, and its place in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    pub serial: String,
    pub index: u64,
    pub leaf_sha256: Hex,
}

/// A certificate that an address rests on and that the journal does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unrecorded {
    pub serial: String,
    pub address: String,
}

/// The root's log: how many intermediates, and what is damaged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootFound {
    pub intermediates: u64,
    pub damage: Option<(String, String)>,
}

/// Answers one question out of this journal.
pub async fn answer(journal: &Journal, ask: &LogAsk) -> Result<LogAnswer, LogError> {
    let replica = ReplicaId::parse(&ask.replica)
        .ok_or_else(|| LogError::Journal(format!("{:?} is no replica", ask.replica)))?;
    Ok(match &ask.about {
        About::Head => LogAnswer::Head(head(journal, &replica).await?),
        About::Certificates(after) => {
            let page = journal.page_found::<IssuedRecord>("", after.as_deref()).await?;
            let (entries, next, unreadable) = apart(page);
            let found = entries.into_iter().filter_map(|issued| claim(issued, &replica)).collect();
            LogAnswer::Certificates(Page { found, next, unreadable })
        }
        About::Serials(serials) => {
            let found = issued(journal, serials).await?.into_iter().flatten().collect();
            // What cannot be read is named where all are listed.
            let (entries, ..) = apart(found);
            let found = entries.into_iter().filter_map(|issued| claim(issued, &replica)).collect();
            LogAnswer::Certificates(Page { found, next: None, unreadable: Vec::new() })
        }
        About::Unrecorded { after, now } => {
            LogAnswer::Unrecorded(unrecorded(journal, after.as_deref(), *now).await?)
        }
        About::Root => LogAnswer::Root(match root::verify(journal).await {
            Ok(intermediates) => RootFound { intermediates, damage: None },
            Err(LogError::Damaged { what, why }) => {
                RootFound { intermediates: 0, damage: Some((what, why)) }
            }
            Err(error) => return Err(error),
        }),
    })
}

async fn head(journal: &Journal, replica: &ReplicaId) -> Result<Option<Head>, LogError> {
    let which = Which::Issuing(replica);
    let Some(log) = Key::public(journal, which).await? else { return Ok(None) };
    let head = journal.read::<LogHeadRecord>(&which.name()).await?;
    let (size, root) = head.map_or_else(
        || (0, hex(&myelin_identity::log::empty_root())),
        |head| (head.record.size, head.record.root),
    );
    Ok(Some(Head { key: log.to_string(), size, root }))
}

fn claim(issued: Entry<IssuedRecord>, replica: &ReplicaId) -> Option<Claim> {
    let serial = issued.key.strip_prefix(IssuedRecord::PREFIX)?.to_owned();
    let place = issued.record.logged.filter(|place| place.replica == replica.to_string())?;
    Some(Claim { serial, index: place.index, leaf_sha256: issued.record.leaf_sha256 })
}

/// What can be read of a page, after which key to go on, and what cannot be read.
fn apart<R>(page: Vec<Found<R>>) -> (Vec<Entry<R>>, Option<String>, Vec<String>) {
    let next = page.last().map(|found| found.key.clone());
    let Readable { entries, unreadable } = page.into();
    (entries, next, unreadable.iter().map(|key| shown(key)).collect())
}

async fn issued(
    journal: &Journal,
    serials: &[String],
) -> Result<Vec<Option<Found<IssuedRecord>>>, LogError> {
    let mut all = Vec::with_capacity(serials.len());
    for some in serials.chunks(MAX_WRITES) {
        let names: Vec<&str> = some.iter().map(String::as_str).collect();
        all.extend(journal.find_many::<IssuedRecord>(&names).await?);
    }
    Ok(all)
}

/// An address and its certificate's record are written in one commit, and the record outlives the
/// certificate.
async fn unrecorded(
    journal: &Journal,
    after: Option<&str>,
    now: UnixSeconds,
) -> Result<Page<Unrecorded>, LogError> {
    let (entries, next, unreadable) = apart(journal.page_found::<AddressRecord>("", after).await?);
    let mut live = Vec::new();
    for entry in entries {
        let address = entry.key.strip_prefix(AddressRecord::PREFIX).unwrap_or(&entry.key);
        let claims = entry.record.claims.iter().filter(|claim| claim.not_after > now);
        live.extend(claims.map(|claim| (claim.serial.to_string(), address.to_owned())));
    }
    // Each port of a workload is a claim.
    live.dedup();
    let serials: Vec<String> = live.iter().map(|(serial, _)| serial.clone()).collect();
    let known = issued(journal, &serials).await?;
    let missing = live.into_iter().zip(known).filter(|(_, known)| known.is_none());
    let found = missing.map(|((serial, address), _)| Unrecorded { serial, address }).collect();
    Ok(Page { found, next, unreadable })
}
