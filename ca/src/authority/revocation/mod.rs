//! Withdrawal by an operator: an ID with all its hosts, or one certificate with its host, is denied
//! until the last certificate concerned would have ended; and taken back if it was a mistake.
//!
//! An ID is denied in one commit, and from that commit on nothing is issued under it. What it
//! concerns (hosts, waiting tokens, how long) is gathered after that, so that no issue slips
//! between the gathering and the denial; a crash in the middle leaves a denial that is too long
//! rather than too short, and `settle` goes on with it.
//!
//! Never: needs a running server, deletes what was issued, or denies by pattern.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::id::{IdError, SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::alarm::held_by;
use super::denied::{Denied, DeniedError};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, Cause, Claim, DenialRecord, DeniedId, DeniedSerial, Entry, Hex, HostRecord,
    IssuedRecord, Journal, JournalError,
};
use crate::store::Commit;
use crate::template::MAX_LIFETIME;

mod settle;

pub use settle::settle_all;
use settle::{Concerned, settle, unbar_hosts};

/// Longest reason: one line of a log.
pub const MAX_REASON_BYTES: usize = 200;
/// Attempts against other changes of what is denied at the same moment.
const MAX_ATTEMPTS: usize = 8;

/// What an operator asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevokeRequest {
    pub subject: Subject,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Id(String),
    Serial(String),
}

/// A denial that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub number: u64,
    pub spiffe_id: String,
    /// Certificates that are denied one by one; an ID is denied as a whole.
    pub serials: Vec<String>,
    /// Machines whose host keys get nothing any more.
    pub hosts: usize,
    /// Join tokens that waited and are void now.
    pub tokens: usize,
    /// It clears itself then.
    pub until: UnixSeconds,
}

/// One denial as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialLine {
    pub number: u64,
    pub at: UnixSeconds,
    pub until: UnixSeconds,
    pub cause: Cause,
    /// Empty: certificates only.
    pub spiffe_id: String,
    pub serials: Vec<String>,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("{id:?} is no SPIFFE ID: {why}; name it whole, as `myelin-ca svid list` shows it")]
    Id { id: String, why: IdError },
    #[error("{id} is of another trust domain than this CA ({expected})")]
    OtherTrustDomain { id: SpiffeId, expected: String },
    #[error("{0} is the CA's own; start the CA again to give it a new certificate")]
    Reserved(SpiffeId),
    #[error("serial {0:?} is not hexadecimal; copy it whole from `myelin-ca svid list`")]
    Serial(String),
    #[error(
        "no certificate with serial {0} was issued here (or it ended more than 7 days ago); see `myelin-ca svid list`"
    )]
    SerialUnknown(String),
    #[error(
        "the certificate with serial {serial} ended at {ended} (Unix time): nothing is left to revoke"
    )]
    SerialEnded { serial: String, ended: UnixSeconds },
    #[error(
        "{0} has no unexpired certificate, no host and no waiting token here: nothing was revoked; is it spelt right?"
    )]
    NothingConcerned(SpiffeId),
    #[error("{id} is revoked already, by number {number}")]
    Already { id: SpiffeId, number: u64 },
    #[error("a reason has at most {MAX_REASON_BYTES} bytes in one line")]
    Reason,
    #[error("there is no denial number {0}; see `myelin-ca revoke list`")]
    NumberUnknown(u64),
    #[error(
        "number {0} is an alarm: a copy of that identity exists, so it stays denied; join the machine with a new host key and token"
    )]
    IsAlarm(u64),
    #[error("number {0} is still being carried out; try again in a moment")]
    NotSettled(u64),
    #[error(transparent)]
    Denied(#[from] DeniedError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the journal changed too often meanwhile; try again")]
    Contended,
}

/// Denies an ID or a certificate. Works on the journal alone; a running server hears of it.
pub async fn revoke(
    journal: &Journal,
    trust_domain: &TrustDomain,
    request: &RevokeRequest,
    now: UnixSeconds,
) -> Result<Revoked, RevokeError> {
    let reason = &request.reason;
    if reason.len() > MAX_REASON_BYTES || reason.chars().any(char::is_control) {
        return Err(RevokeError::Reason);
    }
    match &request.subject {
        Subject::Id(text) => {
            let id = workload_id(trust_domain, text)?;
            revoke_id(journal, &id, reason, now).await
        }
        Subject::Serial(text) => revoke_serial(journal, text, reason, now).await,
    }
}

/// Takes an operator's denial back, with the hosts that it barred.
pub async fn undo(
    journal: &Journal,
    number: u64,
    now: UnixSeconds,
) -> Result<DenialLine, RevokeError> {
    for _ in 0..MAX_ATTEMPTS {
        let denied = Denied::read(journal, now).await?;
        let entry = denied.record(number).ok_or(RevokeError::NumberUnknown(number))?;
        match (entry.record.cause, entry.record.settled) {
            (Cause::Alarm, _) => return Err(RevokeError::IsAlarm(number)),
            (Cause::Operator, false) => return Err(RevokeError::NotSettled(number)),
            (Cause::Operator, true) => {}
        }
        // The hosts first: if this ends in the middle, the denial is still there to be undone.
        unbar_hosts(journal, number).await?;
        let mut batch = Batch::default();
        denied.remove(&mut batch, entry);
        if let Commit::Committed { .. } = journal.commit(batch).await? {
            return Ok(line(entry));
        }
    }
    Err(RevokeError::Contended)
}

/// Every denial that has not ended.
pub async fn list(journal: &Journal, now: UnixSeconds) -> Result<Vec<DenialLine>, RevokeError> {
    let denied = Denied::read(journal, now).await?;
    let live = denied.records().iter().filter(|entry| entry.record.until() >= now);
    Ok(live.map(line).collect())
}

/// Tells claims of the denied from those that count.
pub async fn still_counts(
    journal: &Journal,
    now: UnixSeconds,
) -> Result<impl Fn(&Claim) -> bool, RevokeError> {
    let denied = Denied::read(journal, now).await?;
    Ok(move |claim: &Claim| claim.not_after > now && !denied.holds(claim, now))
}

async fn revoke_id(
    journal: &Journal,
    id: &SpiffeId,
    reason: &str,
    now: UnixSeconds,
) -> Result<Revoked, RevokeError> {
    let longest = DeniedId { spiffe_id: id.to_string(), until: now + MAX_LIFETIME.as_secs() };
    let record = DenialRecord {
        at: now,
        cause: Cause::Operator,
        reason: reason.to_owned(),
        id: Some(longest),
        serials: Vec::new(),
        settled: false,
    };
    let number = 'added: {
        for _ in 0..MAX_ATTEMPTS {
            let denied = Denied::read(journal, now).await?;
            if let Some(number) = denied.number_of(id.as_str(), now) {
                return Err(RevokeError::Already { id: id.clone(), number });
            }
            let mut batch = Batch::default();
            let number = denied.add(&mut batch, &record)?;
            if let Commit::Committed { .. } = journal.commit(batch).await? {
                break 'added number;
            }
        }
        return Err(RevokeError::Contended);
    };
    let Concerned { until, hosts, tokens } = settle(journal, number, now).await?;
    let Some(until) = until else {
        return Err(RevokeError::NothingConcerned(id.clone()));
    };
    Ok(Revoked { number, spiffe_id: id.to_string(), serials: Vec::new(), hosts, tokens, until })
}

async fn revoke_serial(
    journal: &Journal,
    text: &str,
    reason: &str,
    now: UnixSeconds,
) -> Result<Revoked, RevokeError> {
    let serial: Hex = serde_json::from_value(text.to_ascii_lowercase().into())
        .map_err(|_| RevokeError::Serial(text.to_owned()))?;
    let name = serial.to_string();
    let issued = journal.read::<IssuedRecord>(&name).await?;
    let issued = issued.ok_or_else(|| RevokeError::SerialUnknown(name.clone()))?.record;
    if issued.not_after < now {
        return Err(RevokeError::SerialEnded { serial: name, ended: issued.not_after });
    }
    if let Some(id) = SpiffeId::parse(&issued.spiffe_id).ok().filter(SpiffeId::is_reserved) {
        return Err(RevokeError::Reserved(id));
    }
    for _ in 0..MAX_ATTEMPTS {
        let denied = Denied::read(journal, now).await?;
        let host = journal.read::<HostRecord>(&issued.host.to_string()).await?;
        // The host key alone would bring the machine back at once, so it goes too; and with it
        // every other certificate that it holds.
        let mut serials = host.as_ref().map(|host| held_by(&host.record, now)).unwrap_or_default();
        if serials.iter().all(|denied| denied.serial != serial) {
            serials.push(DeniedSerial { serial: serial.clone(), until: issued.not_after });
        }
        let record = DenialRecord {
            at: now,
            cause: Cause::Operator,
            reason: reason.to_owned(),
            id: None,
            serials,
            settled: true,
        };
        let mut batch = Batch::default();
        let number = denied.add(&mut batch, &record)?;
        if let Some(host) = &host {
            batch.replace(host, &host.record.barred(number));
        }
        if let Commit::Committed { .. } = journal.commit(batch).await? {
            return Ok(Revoked {
                number,
                spiffe_id: issued.spiffe_id,
                serials: record.serials.iter().map(|denied| denied.serial.to_string()).collect(),
                hosts: usize::from(host.is_some()),
                tokens: 0,
                until: record.until(),
            });
        }
    }
    Err(RevokeError::Contended)
}

fn workload_id(trust_domain: &TrustDomain, text: &str) -> Result<SpiffeId, RevokeError> {
    let id = SpiffeId::parse(text).map_err(|why| RevokeError::Id { id: text.to_owned(), why })?;
    if id.trust_domain() != trust_domain {
        return Err(RevokeError::OtherTrustDomain { id, expected: trust_domain.to_string() });
    }
    if id.is_reserved() {
        return Err(RevokeError::Reserved(id));
    }
    Ok(id)
}

fn line(entry: &Entry<DenialRecord>) -> DenialLine {
    let record = &entry.record;
    DenialLine {
        number: number_in(&entry.key),
        at: record.at,
        until: record.until(),
        cause: record.cause,
        spiffe_id: record.id.as_ref().map(|denied| denied.spiffe_id.clone()).unwrap_or_default(),
        serials: record.serials.iter().map(|denied| denied.serial.to_string()).collect(),
        reason: record.reason.clone(),
    }
}

/// The number out of a denial's key; every key was written with one.
pub(super) fn number_in(key: &str) -> u64 {
    key.rsplit('/').next().and_then(|name| name.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
