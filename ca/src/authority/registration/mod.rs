//! Registration entries: who may become which ID, by what attestation shows of the caller. Made,
//! listed and deleted by operators, asked at every issue that rests on evidence from outside.
//!
//! Never: a pattern; a selector holds as a whole text or not at all.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use ipnet::IpNet;
use myelin_identity::bundle::TrustBundle;
use serde::{Deserialize, Serialize};

use super::tokens::{self, TokenError};
use crate::attest::{Selector, SelectorError};
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressSource, Batch, CURRENT, Entry, EntryRecord, Granted, Journal, JournalError, Record,
    RegistryRecord,
};
use crate::store::Commit;

mod choose;
mod held;

pub(super) use choose::{Choice, choose};
pub(super) use held::Registered;

/// Most entries: each attested issue looks through all of them, a millisecond at this number.
pub const MAX_ENTRIES: usize = 10_000;
/// Most selectors of one entry: more than attestors show kinds.
pub const MAX_SELECTORS: usize = 16;
/// Most ranges of callers in one entry: pod ranges of a few clusters, both families.
pub const MAX_RANGES: usize = 16;
/// Longest name of an entry: a DNS label.
pub const MAX_NAME_BYTES: usize = 63;
/// Attempts against other changes of entries at the same moment.
const MAX_ATTEMPTS: usize = 8;

/// An entry as an operator writes it and reads it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryLine {
    pub name: String,
    pub selectors: Vec<String>,
    /// Absent: a deny entry.
    pub grants: Option<Granted>,
    #[serde(default)]
    pub created: UnixSeconds,
}

#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("the name {0:?} must be 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -")]
    Name(String),
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error("an entry has 1 to {MAX_SELECTORS} selectors, each once; this one has {0}")]
    Selectors(usize),
    #[error("selectors of one entry must be of one attestor: {0} and {1} never hold together")]
    Mixed(String, String),
    #[error(transparent)]
    Grant(#[from] TokenError),
    #[error("{0:?} is no range such as 10.244.0.0/16; there may be at most {MAX_RANGES}")]
    Range(String),
    #[error(
        "addresses from the certificate go with selectors of x509 only; a pod's token names none: use --address-from caller"
    )]
    NoAddressesInToken,
    #[error("an entry named {0} is there already; choose another name, or delete that one first")]
    Exists(String),
    #[error("there is no entry named {0}; see `myelin-ca entry list`")]
    Unknown(String),
    #[error("there are {MAX_ENTRIES} entries already; let one entry stand for a whole namespace")]
    TooMany,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the entries changed too often meanwhile; try again")]
    Contended,
}

/// Makes an entry. Works on the journal alone; a running server sees it at the next issue.
pub async fn create(
    journal: &Journal,
    bundle: &TrustBundle,
    asked: &EntryLine,
    now: UnixSeconds,
) -> Result<EntryLine, EntryError> {
    let record = checked(bundle, asked, now)?;
    for _ in 0..MAX_ATTEMPTS {
        let registered = Registered::read(journal).await?;
        if registered.entries().iter().any(|entry| entry.name == asked.name) {
            return Err(EntryError::Exists(asked.name.clone()));
        }
        if registered.entries().len() >= MAX_ENTRIES {
            return Err(EntryError::TooMany);
        }
        let mut batch = Batch::default();
        registered.grow(&mut batch);
        batch.create(&asked.name, &record);
        if let Commit::Committed { .. } = journal.commit(batch).await? {
            return Ok(line(asked.name.clone(), record));
        }
    }
    Err(EntryError::Contended)
}

pub async fn list(journal: &Journal) -> Result<Vec<EntryLine>, EntryError> {
    let all = journal.all::<EntryRecord>().await?;
    Ok(all.into_iter().map(|entry| line(name(&entry), entry.record)).collect())
}

pub async fn show(journal: &Journal, name: &str) -> Result<EntryLine, EntryError> {
    let entry = journal.read::<EntryRecord>(&known(name)?).await?;
    let entry = entry.ok_or_else(|| EntryError::Unknown(name.to_owned()))?;
    Ok(line(name.to_owned(), entry.record))
}

/// Deletes an entry: what it gave is not issued or renewed any more. What was issued lives on.
pub async fn delete(journal: &Journal, name: &str) -> Result<EntryLine, EntryError> {
    let name = known(name)?;
    for _ in 0..MAX_ATTEMPTS {
        let registry = journal.read::<RegistryRecord>(CURRENT).await?;
        let entry = journal.read::<EntryRecord>(&name).await?;
        let entry = entry.ok_or_else(|| EntryError::Unknown(name.clone()))?;
        let mut batch = Batch::default();
        held::grow(registry.as_ref(), &mut batch);
        batch.remove(&entry);
        if let Commit::Committed { .. } = journal.commit(batch).await? {
            return Ok(line(name, entry.record));
        }
    }
    Err(EntryError::Contended)
}

/// The record of what was asked for, checked whole.
fn checked(
    bundle: &TrustBundle,
    asked: &EntryLine,
    now: UnixSeconds,
) -> Result<EntryRecord, EntryError> {
    known(&asked.name)?;
    let mut selectors = Vec::new();
    for text in &asked.selectors {
        selectors.push(text.parse::<Selector>()?);
    }
    selectors.sort_unstable();
    selectors.dedup();
    if selectors.len() != asked.selectors.len() || !(1..=MAX_SELECTORS).contains(&selectors.len()) {
        return Err(EntryError::Selectors(asked.selectors.len()));
    }
    let (first, last) = (&selectors[0], &selectors[selectors.len() - 1]);
    if first.family() != last.family() {
        return Err(EntryError::Mixed(first.to_string(), last.to_string()));
    }
    let family = first.family().to_owned();
    let granted = |asked: &Granted| -> Result<Granted, EntryError> {
        let spiffe_id = tokens::workload_id(bundle, &asked.spiffe_id)?.to_string();
        let ports = tokens::ports(&asked.ports)?;
        tokens::protocol(&asked.protocol)?;
        let addresses = match &asked.addresses {
            AddressSource::Listed(addresses) => {
                AddressSource::Listed(tokens::addresses(addresses)?)
            }
            AddressSource::Caller { within } => AddressSource::Caller { within: ranges(within)? },
            AddressSource::Evidence if family == "x509" => AddressSource::Evidence,
            AddressSource::Evidence => return Err(EntryError::NoAddressesInToken),
        };
        Ok(Granted { spiffe_id, addresses, ports, protocol: asked.protocol.clone() })
    };
    Ok(EntryRecord {
        selectors: selectors.iter().map(Selector::to_string).collect(),
        grants: asked.grants.as_ref().map(granted).transpose()?,
        created: now,
    })
}

fn known(name: &str) -> Result<String, EntryError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        Ok(name.to_owned())
    } else {
        Err(EntryError::Name(name.to_owned()))
    }
}

fn ranges(texts: &[String]) -> Result<Vec<String>, EntryError> {
    if texts.len() > MAX_RANGES {
        return Err(EntryError::Range(texts.join(" ")));
    }
    let range = |text: &String| text.parse::<IpNet>().map(|net| net.trunc().to_string());
    texts.iter().map(|text| range(text).map_err(|_| EntryError::Range(text.clone()))).collect()
}

fn line(name: String, record: EntryRecord) -> EntryLine {
    let EntryRecord { selectors, grants, created } = record;
    EntryLine { name, selectors, grants, created }
}

fn name(entry: &Entry<EntryRecord>) -> String {
    entry.key.trim_start_matches(EntryRecord::PREFIX).to_owned()
}

/// Whether an address lies within one of these ranges; none means anywhere.
fn lies_within(address: IpAddr, ranges: &[String]) -> bool {
    let holds = |text: &String| text.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    ranges.is_empty() || ranges.iter().any(holds)
}

#[cfg(test)]
mod tests;
