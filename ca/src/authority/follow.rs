//! What other replicas write to the shared store reaches this one's memory by watch: who lives
//! where, what is denied, where the root ladder stands. `app` runs it beside the doors.
//!
//! Never: decides on what it hears: an issue reads the store itself.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::StreamExt as _;

use super::{Authority, AuthorityError};
use crate::journal::{AddressRecord, BundleRecord, DenyRecord, JournalError, Noticed};
use crate::store::StoreError;

/// Between the end of a watch and the next: each begins with reading everything anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Authority {
    /// Follows the store until it is dropped. Everything after the revision of the last recall is
    /// heard; when a watch ends, all is read anew, which heals whatever was missed.
    pub async fn follow(&self) -> Infallible {
        let mut after = Some(self.recalled);
        loop {
            let ended = match after.take() {
                Some(after) => self.hear_from(after).await,
                None => match self.catch_up().await {
                    Ok(revision) => {
                        tracing::info!(revision, "following the store again");
                        after = Some(revision);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            tracing::warn!(error = %ended, "what other replicas do is not followed; reading anew");
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn catch_up(&self) -> Result<u64, AuthorityError> {
        let revision = self.recall().await?;
        self.hear_denials().await?;
        self.refresh_trust().await?;
        Ok(revision)
    }

    /// Hears everything after this revision, until a watch ends.
    async fn hear_from(&self, after: u64) -> AuthorityError {
        match self.hear_each(after).await {
            Err(error) => error,
            Ok(ended) => ended.into(),
        }
    }

    async fn hear_each(&self, after: u64) -> Result<JournalError, AuthorityError> {
        let mut addresses = self.journal.watch::<AddressRecord>(after).await?;
        let mut denials = self.journal.watch::<DenyRecord>(after).await?;
        let mut steps = self.journal.watch::<BundleRecord>(after).await?;
        loop {
            tokio::select! {
                // A step of the ladder goes before everything that was issued under it.
                biased;
                notice = steps.next() => match notice {
                    // Whatever it says: the record is read and judged whole.
                    Some(Ok(_) | Err(JournalError::Unreadable { .. })) => {
                        self.refresh_trust().await?;
                    }
                    Some(Err(error)) => return Ok(error),
                    None => return Ok(StoreError::Ended.into()),
                },
                notice = addresses.next() => match notice {
                    Some(Ok(notice)) => self.hear_address(&notice),
                    Some(Err(error @ JournalError::Unreadable { .. })) => {
                        tracing::error!(%error, "an address is not followed");
                    }
                    Some(Err(error)) => return Ok(error),
                    None => return Ok(StoreError::Ended.into()),
                },
                notice = denials.next() => match notice {
                    // Whatever it says: the list is read whole.
                    Some(Ok(_) | Err(JournalError::Unreadable { .. })) => {
                        self.hear_denials().await?;
                    }
                    Some(Err(error)) => return Ok(error),
                    None => return Ok(StoreError::Ended.into()),
                },
            }
        }
    }

    fn hear_address(&self, notice: &Noticed<AddressRecord>) {
        let address: IpAddr = match notice.name.parse() {
            Ok(address) => address,
            Err(error) => {
                tracing::error!(name = notice.name, %error, "an address cannot be read");
                return;
            }
        };
        match &notice.entry {
            Some(entry) => self.live.publish(address, &entry.record, notice.revision),
            None => self.live.forget(address, notice.revision),
        }
    }
}
