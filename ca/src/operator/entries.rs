//! Registration entries as an operator asks for them and reads about them.
//!
//! Never: decides; `authority::registration` does.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use myelin_identity::bundle::TrustBundle;

use super::OperatorError;
use crate::authority::registration::{self, EntryLine};
use crate::clock::UnixSeconds;
use crate::journal::{AddressSource, Journal};

pub(super) async fn create(
    journal: &Journal,
    bundle: &TrustBundle,
    now: UnixSeconds,
    asked: &EntryLine,
) -> Result<EntryLine, OperatorError> {
    let made = registration::create(journal, bundle, asked, now).await?;
    audit("entry_created", &made);
    Ok(made)
}

pub(super) async fn delete(journal: &Journal, name: &str) -> Result<EntryLine, OperatorError> {
    let gone = registration::delete(journal, name).await?;
    audit("entry_deleted", &gone);
    Ok(gone)
}

fn audit(outcome: &'static str, entry: &EntryLine) {
    let id = entry.grants.as_ref().map_or("", |granted| granted.spiffe_id.as_str());
    tracing::info!(
        target: "audit", outcome, id, name = entry.name, selectors = ?entry.selectors,
        deny = entry.grants.is_none(), "registration entry changed"
    );
}

impl fmt::Display for EntryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  ", self.name)?;
        match &self.grants {
            None => write!(f, "DENY")?,
            Some(granted) => {
                write!(f, "{}  ", granted.spiffe_id)?;
                match &granted.addresses {
                    AddressSource::Listed(addresses) => write!(f, "at {addresses:?}")?,
                    AddressSource::Caller { within } if within.is_empty() => {
                        write!(f, "at the caller's address")?;
                    }
                    AddressSource::Caller { within } => {
                        write!(f, "at the caller's address within {}", within.join(" "))?;
                    }
                    AddressSource::Evidence => write!(f, "at the certificate's addresses")?,
                }
                if !granted.ports.is_empty() {
                    write!(f, " ports {:?}", granted.ports)?;
                }
                if !granted.protocol.is_empty() {
                    write!(f, " speaks {}", granted.protocol)?;
                }
            }
        }
        write!(f, "  if {}", self.selectors.join(" and "))
    }
}
