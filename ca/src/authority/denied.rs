//! What is denied, as the journal has it and as this process knows it: read whole and consistently,
//! published to callers and watchers, changed by one commit that grows the epoch.
//!
//! Never: forgets an entry without a new epoch: who holds an epoch's list may compare it.

// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use myelin_identity::bundle::{DenyEntry, DenyError, DenyList, DenySubject, Serial};
use myelin_identity::id::SpiffeId;
use rustls_pki_types::UnixTime;

use super::revocation::{number_in, settle_all};
use super::{Authority, AuthorityError, IssueError, Reason};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, CURRENT, Claim, DenialRecord, DenyRecord, Entry, Journal, JournalError, denial_name,
};

/// Readings of epoch and records until both are of one moment. Each failure means that somebody
/// denied something in between, which people and alarms do not do eight times in a row.
const MAX_READINGS: usize = 8;

/// The deny list, and the journal's record that it is of.
#[derive(Clone, Debug)]
pub(super) struct Denied {
    pub(super) list: Arc<DenyList>,
    epoch: Option<Entry<DenyRecord>>,
    records: Arc<Vec<Entry<DenialRecord>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeniedError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the deny list is full: {0}; an incident of this size needs a new root")]
    Full(#[from] DenyError),
    #[error("the deny list changes too often to be read; try again")]
    Contended,
}

impl Denied {
    /// Reads it whole.
    pub(super) async fn read(journal: &Journal, now: UnixSeconds) -> Result<Self, DeniedError> {
        for _ in 0..MAX_READINGS {
            let epoch = journal.read::<DenyRecord>(CURRENT).await?;
            let records = journal.all::<DenialRecord>().await?;
            let after = journal.read::<DenyRecord>(CURRENT).await?;
            let revision = |read: &Option<Entry<DenyRecord>>| read.as_ref().map(|it| it.revision);
            if revision(&epoch) == revision(&after) {
                let list = list(epoch.as_ref(), records.iter().map(|it| &it.record), now)?;
                return Ok(Self { list: Arc::new(list), epoch, records: Arc::new(records) });
            }
        }
        Err(DeniedError::Contended)
    }

    pub(super) fn records(&self) -> &[Entry<DenialRecord>] {
        &self.records
    }

    pub(super) fn record(&self, number: u64) -> Option<&Entry<DenialRecord>> {
        let name = denial_name(number);
        self.records.iter().find(|entry| entry.key.ends_with(&name))
    }

    /// The denial that holds this ID at `now`.
    pub(super) fn number_of(&self, spiffe_id: &str, now: UnixSeconds) -> Option<u64> {
        let holds = |record: &DenialRecord| {
            record.id.as_ref().is_some_and(|id| id.spiffe_id == spiffe_id && id.until >= now)
        };
        let found = self.records.iter().find(|entry| holds(&entry.record));
        found.map(|entry| number_in(&entry.key))
    }

    /// The decision rests on nothing else having been denied since.
    pub(super) fn expect(&self, batch: &mut Batch) {
        match &self.epoch {
            Some(epoch) => batch.unchanged(epoch),
            None => batch.absent::<DenyRecord>(CURRENT),
        }
    }

    /// Puts a denial into the batch; yields its number. Refuses what would not fit the list.
    pub(super) fn add(&self, batch: &mut Batch, record: &DenialRecord) -> Result<u64, DeniedError> {
        list(
            self.epoch.as_ref(),
            self.records.iter().map(|entry| &entry.record).chain([record]),
            0,
        )?;
        let number = self.grow(batch);
        batch.create(&denial_name(number), record);
        Ok(number)
    }

    pub(super) fn replace(
        &self,
        batch: &mut Batch,
        entry: &Entry<DenialRecord>,
        record: &DenialRecord,
    ) {
        self.grow(batch);
        batch.replace(entry, record);
    }

    pub(super) fn remove(&self, batch: &mut Batch, entry: &Entry<DenialRecord>) {
        self.grow(batch);
        batch.remove(entry);
    }

    fn grow(&self, batch: &mut Batch) -> u64 {
        let held = self.epoch.as_ref();
        let mut record = held.map(|entry| entry.record.clone()).unwrap_or_default();
        record.epoch += 1;
        batch.put(CURRENT, held, &record);
        record.epoch
    }

    /// Whether nobody may hold this ID at `now`.
    pub(super) fn holds_id(&self, spiffe_id: &str, now: UnixSeconds) -> bool {
        let id = SpiffeId::parse(spiffe_id);
        id.is_ok_and(|id| self.list.id_denied_until(&id, at(now)).is_some())
    }

    /// Whether whoever made this claim is denied at `now`, by ID or by certificate.
    pub(super) fn holds(&self, claim: &Claim, now: UnixSeconds) -> bool {
        let (Ok(id), Ok(serial)) =
            (SpiffeId::parse(&claim.spiffe_id), Serial::from_bytes(&claim.serial.0))
        else {
            return false;
        };
        self.list.denied_until(&id, &serial, at(now)).is_some()
    }
}

impl Authority {
    /// What is denied, as it was last read.
    pub(super) fn denied(&self) -> Denied {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The deny list as it was last read.
    pub fn deny_list(&self) -> Arc<DenyList> {
        self.denied().list
    }

    pub fn deny_epoch(&self) -> u64 {
        self.deny_list().epoch()
    }

    /// Goes on with revocations that were interrupted; yields how many there were.
    pub async fn settle_denials(&self) -> Result<usize, AuthorityError> {
        if self.denied().records.iter().all(|entry| entry.record.settled) {
            return Ok(0);
        }
        Ok(settle_all(&self.journal, self.clock.seconds()).await?)
    }

    /// Takes over what the journal denies, if that has changed: called after every denial, and by
    /// the clock for those of other processes. Says whether it had changed.
    pub async fn hear_denials(&self) -> Result<bool, AuthorityError> {
        let asked_at = self.clock.seconds();
        let stored = self.journal.read::<DenyRecord>(CURRENT).await?;
        let held = self.denied().epoch.map(|entry| entry.revision);
        if stored.map(|entry| entry.revision) == held {
            self.confirmed.fetch_max(asked_at, Ordering::AcqRel);
            return Ok(false);
        }
        let now = self.clock.seconds();
        let fresh = Denied::read(&self.journal, now).await?;
        self.live.withdraw(|claim| fresh.holds(claim, now));
        {
            let mut current = self.denied.write().unwrap_or_else(PoisonError::into_inner);
            // Two readings at once may arrive here in the other order than they were made.
            if fresh.list.epoch() <= current.list.epoch() {
                return Ok(false);
            }
            *current = fresh;
        }
        self.confirmed.fetch_max(asked_at, Ordering::AcqRel);
        self.say().await?;
        Ok(true)
    }
}

impl From<DeniedError> for IssueError {
    fn from(error: DeniedError) -> Self {
        match error {
            DeniedError::Journal(error) => error.into(),
            DeniedError::Full(error) => Self::DenyListFull(error),
            DeniedError::Contended => Self::Refused(Reason::Contended),
        }
    }
}

/// The list of these records, ended entries included: only the sweep takes them out, and it grows
/// the epoch.
fn list<'a>(
    epoch: Option<&Entry<DenyRecord>>,
    records: impl Iterator<Item = &'a DenialRecord>,
    now: UnixSeconds,
) -> Result<DenyList, DenyError> {
    let serials = |serials: &[crate::journal::DeniedSerial]| {
        let entries = serials.iter().filter_map(|denied| {
            // What was written as a serial is one.
            let serial = Serial::from_bytes(&denied.serial.0).ok()?;
            Some(DenyEntry { subject: DenySubject::Serial(serial), until: denied.until })
        });
        entries.collect::<Vec<_>>()
    };
    let old = epoch.map(|entry| serials(&entry.record.serials)).unwrap_or_default();
    let entries = records.flat_map(|record| {
        let id = record.id.as_ref().and_then(|denied| {
            let id = SpiffeId::parse(&denied.spiffe_id).ok()?;
            Some(DenyEntry { subject: DenySubject::Id(id), until: denied.until })
        });
        serials(&record.serials).into_iter().chain(id)
    });
    DenyList::new(epoch.map_or(0, |entry| entry.record.epoch), now, old.into_iter().chain(entries))
}

fn at(seconds: UnixSeconds) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}
