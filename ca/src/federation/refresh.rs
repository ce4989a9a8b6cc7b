//! One refresh of one foreign bundle: fetch, judge, write down. Called by the keeper when it is due
//! and by `operator` when somebody asks.
//!
//! Never: a failure that touches the last good bundle, a bundle written for an entry that changed
//! while it was fetched.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::id::{SpiffeId, TrustDomain};

use super::fetch::{FetchError, Recognised};
use super::judge::{Unfit, Verdict};
use super::{FederationError, entry, fetch, judge};
use crate::clock::Clock;
use crate::journal::{
    Batch, EndpointProfile, Entry, FailureRecord, FederationRecord, Journal, JournalError,
};
use crate::store::Commit;

/// Longest reason that is kept: a line of a terminal, and some.
const MAX_WHY_CHARACTERS: usize = 300;

/// What became of a refresh that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint says something new, which counts from now on.
    Changed { sequence: u64, roots: usize },
    /// It says what we hold.
    Unchanged { sequence: u64 },
    /// The entry was changed meanwhile, by another replica or by an operator.
    Overtaken,
}

#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    #[error(transparent)]
    Federation(#[from] FederationError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl Outcome {
    pub const WORDS: [&'static str; 3] = ["changed", "unchanged", "overtaken"];

    pub fn word(self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Unchanged { .. } => "unchanged",
            Self::Overtaken => "overtaken",
        }
    }
}

impl RefreshError {
    pub const STORE: &'static str = "store_failed";

    pub fn word(&self) -> &'static str {
        match self {
            Self::Federation(_) => Self::STORE,
            Self::Fetch(error) => error.word(),
            Self::Unfit(unfit) => unfit.word(),
        }
    }
}

impl From<JournalError> for RefreshError {
    fn from(error: JournalError) -> Self {
        Self::Federation(error.into())
    }
}

/// Fetches the bundle of a domain that is federated, now.
pub async fn refresh(
    journal: &Journal,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<Outcome, RefreshError> {
    let (trust_domain, held) = entry::find(journal, trust_domain.as_str()).await?;
    match fetched(&trust_domain, &held.record, clock).await {
        Ok((next, outcome)) => {
            let changed = matches!(outcome, Outcome::Changed { .. });
            if !write(journal, &held, &next, changed).await? {
                return Ok(Outcome::Overtaken);
            }
            if let Outcome::Changed { sequence, roots } = outcome {
                tracing::info!(
                    target: "audit", outcome = "foreign_bundle_changed", %trust_domain, sequence,
                    roots, "the bundle of a federated domain changed"
                );
            }
            Ok(outcome)
        }
        Err(error) => {
            let next = failed(&held.record, &error, clock);
            // Overtaken by somebody who fared better, perhaps; the error is still ours to tell.
            let _ = write(journal, &held, &next, false).await?;
            Err(error)
        }
    }
}

async fn fetched(
    trust_domain: &TrustDomain,
    record: &FederationRecord,
    clock: &Clock,
) -> Result<(FederationRecord, Outcome), RefreshError> {
    let recognised = recognised(trust_domain, record)?;
    let json = fetch::fetch(&record.url, record.address, recognised, clock).await?;
    let now = clock.seconds();
    let held = record.bundle.as_ref();
    let (document, verdict) = judge::judge(trust_domain, held, &json, now)?;
    let changed = match (verdict, held) {
        (Verdict::Unchanged, Some(held)) => held.changed,
        _ => now,
    };
    let bundle = Some(judge::record(&document, now, changed));
    let next = FederationRecord { bundle, failure: None, ..record.clone() };
    let sequence = document.bundle.generation();
    let outcome = match verdict {
        Verdict::Unchanged => Outcome::Unchanged { sequence },
        Verdict::Changed => Outcome::Changed { sequence, roots: document.bundle.roots().len() },
    };
    Ok((next, outcome))
}

/// By what the endpoint is recognised: under `https_spiffe` the bundle that we hold of its domain.
fn recognised(
    trust_domain: &TrustDomain,
    record: &FederationRecord,
) -> Result<Recognised, RefreshError> {
    let unreadable =
        |why: String| JournalError::Unreadable { key: format!("federation/{trust_domain}"), why };
    match record.profile {
        EndpointProfile::HttpsWeb => {
            Ok(Recognised::Web { roots_pem: record.web_roots_pem.clone() })
        }
        EndpointProfile::HttpsSpiffe => {
            let (Some(held), Some(id)) = (&record.bundle, &record.endpoint_id) else {
                return Err(unreadable("it lacks bundle or endpoint ID".to_owned()).into());
            };
            let bundle = judge::bundle(trust_domain.clone(), held)
                .map_err(|error| unreadable(error.to_string()))?;
            let id = SpiffeId::parse(id).map_err(|error| unreadable(error.to_string()))?;
            Ok(Recognised::Spiffe { bundle: Arc::new(bundle), id })
        }
    }
}

fn failed(record: &FederationRecord, error: &RefreshError, clock: &Clock) -> FederationRecord {
    let before = record.failure.as_ref().map_or(0, |failure| failure.attempts);
    let failure = FailureRecord {
        at: clock.seconds(),
        attempts: before.saturating_add(1),
        word: error.word().to_owned(),
        why: error.to_string().chars().take(MAX_WHY_CHARACTERS).collect(),
    };
    FederationRecord { failure: Some(failure), ..record.clone() }
}

/// False if the entry is no longer what it was.
async fn write(
    journal: &Journal,
    held: &Entry<FederationRecord>,
    next: &FederationRecord,
    changed: bool,
) -> Result<bool, RefreshError> {
    for _ in 0..super::COMMIT_ATTEMPTS {
        let mut batch = Batch::default();
        if changed {
            entry::bump(journal, &mut batch).await?;
        }
        batch.replace(held, next);
        if let Commit::Committed { .. } = journal.commit(batch).await? {
            return Ok(true);
        }
        // The epoch may have moved for another domain's sake: then our entry is as it was.
        let now = journal.read::<FederationRecord>(entry::name(held)).await?;
        if now.is_none_or(|now| now.revision != held.revision) {
            return Ok(false);
        }
    }
    Err(FederationError::Contended.into())
}
