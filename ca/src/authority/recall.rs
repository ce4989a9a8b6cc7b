//! What this replica holds in memory, filled from the store: at start, and after a watch of the
//! store has ended. Page by page, so that a large mesh costs time and not memory.
//!
//! Never: takes over a claim of a certificate that the journal does not know.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::net::IpAddr;

use super::{Authority, AuthorityError};
use crate::clock::UnixSeconds;
use crate::journal::{AddressRecord, Entry, IssuedRecord, JournalError};
use crate::store::MAX_WRITES;

impl Authority {
    /// Reads who lives where; every live claim must have been issued. Yields the revision from which
    /// a watch misses nothing.
    pub(super) async fn recall(&self) -> Result<u64, AuthorityError> {
        let now = self.clock.seconds();
        let revision = self.journal.revision().await?;
        let (mut there, mut after) = (HashSet::new(), None::<String>);
        loop {
            let page = self.journal.page::<AddressRecord>("", after.as_deref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            self.see_all_issued(&page, now).await?;
            for entry in page {
                let address = address_of(&entry)?;
                self.live.publish(address, &entry.record, entry.revision);
                there.insert(address);
            }
        }
        self.live.retain(&there, revision);
        self.live.expire(now);
        let denied = self.denied();
        self.live.withdraw(|claim| denied.holds(claim, now));
        Ok(revision)
    }

    async fn see_all_issued(
        &self,
        page: &[Entry<AddressRecord>],
        now: UnixSeconds,
    ) -> Result<(), AuthorityError> {
        let live = page.iter().flat_map(|entry| {
            let unexpired = entry.record.claims.iter().filter(|claim| claim.not_after > now);
            unexpired.map(|claim| (name_of(entry), claim.serial.to_string()))
        });
        let live: Vec<(&str, String)> = live.collect();
        for claims in live.chunks(MAX_WRITES) {
            let serials: Vec<&str> = claims.iter().map(|(_, serial)| serial.as_str()).collect();
            let issued = self.journal.read_many::<IssuedRecord>(&serials).await?;
            if let Some(at) = issued.iter().position(Option::is_none) {
                let (address, serial) = claims[at].clone();
                let address = address.to_owned();
                return Err(AuthorityError::Disagreement { address, serial });
            }
        }
        Ok(())
    }
}

fn name_of(entry: &Entry<AddressRecord>) -> &str {
    entry.key.trim_start_matches("address/")
}

fn address_of(entry: &Entry<AddressRecord>) -> Result<IpAddr, JournalError> {
    name_of(entry).parse().map_err(|error: std::net::AddrParseError| JournalError::Unreadable {
        key: entry.key.clone(),
        why: error.to_string(),
    })
}
