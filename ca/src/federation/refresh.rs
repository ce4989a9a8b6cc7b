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
use super::seal::what_counts;
use super::{FederationError, Roll, entry, fetch, judge};
use crate::clock::Clock;
use crate::journal::{
    Batch, EndpointProfile, Entry, FailureRecord, FederationRecord, JournalError,
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
    roll: &Roll,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<Outcome, RefreshError> {
    let (trust_domain, held) = entry::find(roll, trust_domain.as_str()).await?;
    let name = trust_domain.as_str();
    match fetched(&trust_domain, &held.record, clock).await {
        Ok((next, outcome)) => {
            let written = match outcome {
                Outcome::Changed { .. } => change(roll, name, &held, &next).await?,
                _ => write(roll, &held, &next).await?,
            };
            if !written {
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
            let _ = write(roll, &held, &next).await?;
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

/// What nobody is told of: when it was fetched, how often that failed. False if the entry is no
/// longer what it was.
async fn write(
    roll: &Roll,
    held: &Entry<FederationRecord>,
    next: &FederationRecord,
) -> Result<bool, RefreshError> {
    let mut batch = Batch::default();
    batch.replace(held, next);
    Ok(matches!(roll.journal().commit(batch).await?, Commit::Committed { .. }))
}

/// Another bundle, which counts with the next roll. False if the entry is no longer what it was.
async fn change(
    roll: &Roll,
    name: &str,
    held: &Entry<FederationRecord>,
    next: &FederationRecord,
) -> Result<bool, RefreshError> {
    for _ in 0..super::COMMIT_ATTEMPTS {
        let view = roll.view().await?;
        if view.member(name).is_none_or(|(_, now)| now.revision != held.revision) {
            return Ok(false);
        }
        let mut members = view.roll.members.clone();
        members.insert(name.to_owned(), what_counts(name, next));
        let mut batch = Batch::default();
        batch.replace(held, next);
        if roll.commit(&view, members, batch).await? {
            return Ok(true);
        }
    }
    Err(FederationError::Contended.into())
}
