//! A CA whose root key is not here: imported intermediates wait in the journal and are taken in
//! order, and somebody is told in time when no more of them wait.
//!
//! Never: takes one before its time, or one that would not outlast the present.

// SPDX-License-Identifier: Apache-2.0

use super::make::from_record;
use super::{RotationError, issuing_name};
use crate::clock::UnixSeconds;
use crate::journal::{Batch, Entry, IssuerRecord, Journal, successors_of};
use crate::replica::ReplicaId;
use crate::signer::{Signer, Vault, validity_of};
use crate::store::Commit;
use crate::template::Validity;

/// Parts of an intermediate's life, in percent, at which operators are told that what is here covers
/// no more: half a year, a quarter, a month of the year that it lives.
pub const ALARMS: [u8; 3] = [10, 25, 50];

/// How long what is here will do: the present intermediate, then those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    pub until: UnixSeconds,
    /// How long the last of them lives: the measure of the alarms.
    pub life: u64,
    pub successors: usize,
}

/// The imported intermediates that wait, earliest first.
pub async fn successors(
    journal: &Journal,
    replica: &ReplicaId,
) -> Result<Vec<(Entry<IssuerRecord>, Validity)>, RotationError> {
    let waiting = journal.page::<IssuerRecord>(&successors_of(replica), None).await?;
    let with_validity = |entry: Entry<IssuerRecord>| {
        let validity = validity_of(&entry.record.certificate_der.0)?;
        Ok((entry, validity))
    };
    waiting.into_iter().map(with_validity).collect()
}

/// Puts the next imported intermediate in the place of the present one, if there is one whose time
/// has come.
pub(super) async fn take(
    journal: &Journal,
    vault: &Vault,
    replica: &ReplicaId,
    now: UnixSeconds,
) -> Result<Option<Signer>, RotationError> {
    let current = journal.read::<IssuerRecord>(&issuing_name(replica)).await?;
    let current = current.ok_or(RotationError::NoCa)?;
    let end = validity_of(&current.record.certificate_der.0)?.not_after;
    let waiting = successors(journal, replica).await?;
    let Some((next, _)) = waiting.iter().find(|(_, validity)| {
        validity.not_before <= now && now < validity.not_after && end < validity.not_after
    }) else {
        return Ok(None);
    };
    let signer = Signer::open(&from_record(&next.record), vault)?;
    let mut batch = Batch::default();
    batch.replace(&current, &next.record);
    batch.remove(next);
    match journal.commit(batch).await? {
        Commit::Committed { .. } => {
            vault.forget(&from_record(&current.record));
            Ok(Some(signer))
        }
        Commit::Conflict => Err(RotationError::Raced),
    }
}

/// Until when the present intermediate and its successors (earliest first) reach without a gap.
pub fn cover(issuing: Validity, successors: &[Validity]) -> Cover {
    let mut last = issuing;
    for next in successors {
        if next.not_before <= last.not_after && next.not_after > last.not_after {
            last = *next;
        }
    }
    let life = last.not_after.saturating_sub(last.not_before);
    Cover { until: last.not_after, life, successors: successors.len() }
}

impl Cover {
    /// The least of [`ALARMS`] that has been reached.
    pub fn alarm(&self, now: UnixSeconds) -> Option<u8> {
        let left = self.until.saturating_sub(now);
        ALARMS.into_iter().find(|percent| left <= self.life / 100 * u64::from(*percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn validity(from: u64, until: u64) -> Validity {
        Validity { not_before: from * DAY, not_after: until * DAY }
    }

    #[test]
    fn alarms_come_at_half_a_quarter_and_a_tenth_of_the_last_life() {
        let alone = cover(validity(0, 1000), &[]);
        let table = [
            (0, None),
            (499, None),
            (500, Some(50)),
            (749, Some(50)),
            (750, Some(25)),
            (899, Some(25)),
            (900, Some(10)),
            (1000, Some(10)),
            (2000, Some(10)),
        ];
        for (day, expected) in table {
            assert_eq!(alone.alarm(day * DAY), expected, "{day}");
        }
        let followed = cover(validity(0, 1000), &[validity(900, 1900)]);
        assert_eq!(followed.alarm(1000 * DAY), None);
        assert_eq!(followed.alarm(1400 * DAY), Some(50));
    }

    #[test]
    fn successors_count_only_if_they_follow_without_a_gap() {
        let table: [(&[Validity], u64); 4] = [
            (&[validity(90, 190), validity(180, 280)], 280),
            (&[validity(101, 200)], 100),
            (&[validity(90, 190), validity(191, 290)], 190),
            (&[validity(10, 60)], 100),
        ];
        for (waiting, until) in table {
            let covered = cover(validity(0, 100), waiting);
            assert_eq!(covered.until, until * DAY, "{waiting:?}");
            assert_eq!(covered.successors, waiting.len());
        }
    }
}
