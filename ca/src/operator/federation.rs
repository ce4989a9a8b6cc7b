//! What an operator may ask about foreign trust domains, and the answers as people read them.
//!
//! Never: decides what a bundle may say; `federation` does.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, UnixSeconds};
use crate::federation::{
    self, AddRequest, FederationError, Outcome, PassedOver, RefreshError, Roll,
};
use crate::journal::{FailureRecord, FederationRecord, shown as shown_text};

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FederationAsk {
    Add(AddRequest),
    List,
    Show(String),
    Refresh(String),
    Remove(String),
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FederationAnswer {
    /// What was asked for is done; the first fetch may have failed, and is tried again.
    Done {
        done: String,
        federation: Option<FederationLine>,
    },
    List {
        federations: Vec<FederationLine>,
        /// What lies in the store and is not believed.
        passed_over: Vec<PassedOverLine>,
    },
    Show {
        federation: FederationLine,
        roots: Vec<String>,
        pem: String,
    },
}

/// One foreign trust domain. Times are Unix seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FederationLine {
    pub trust_domain: String,
    pub profile: String,
    pub url: String,
    pub endpoint_spiffe_id: Option<String>,
    pub unlogged: bool,
    pub sequence: Option<u64>,
    /// Hash of its roots, to compare over the telephone.
    pub hash: Option<String>,
    /// When the endpoint last confirmed it; 0: it is what the operator brought.
    pub fetched: Option<UnixSeconds>,
    pub failure: Option<FailureRecord>,
    /// When this was written.
    pub now: UnixSeconds,
}

/// A record of the store that nobody is told of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassedOverLine {
    pub name: String,
    pub reason: String,
    pub why: String,
}

/// Why a question about federation is not answered.
#[derive(Debug, thiserror::Error)]
pub enum FederationAskError {
    #[error(transparent)]
    Federation(#[from] FederationError),
    #[error("{trust_domain} was not refreshed ({}): {error}", error.word())]
    Refresh { trust_domain: TrustDomain, error: RefreshError },
}

/// Answers one question.
pub(super) async fn answer(
    roll: &Roll,
    now: UnixSeconds,
    ask: FederationAsk,
) -> Result<FederationAnswer, FederationAskError> {
    match ask {
        FederationAsk::Add(request) => add(roll, now, &request).await,
        FederationAsk::List => {
            let view = roll.view().await?;
            let lines = view.members.iter().map(|(domain, it)| line(domain, &it.record, now));
            let federations = lines.collect();
            let passed_over = view.passed_over.into_iter().map(Into::into).collect();
            Ok(FederationAnswer::List { federations, passed_over })
        }
        FederationAsk::Show(name) => {
            let (domain, entry) = federation::find(roll, &name).await?;
            let bundle = bundle(&domain, &entry.record);
            let roots = bundle.iter().flat_map(|b| b.root_ids()).map(|id| id.to_string());
            Ok(FederationAnswer::Show {
                federation: line(&domain, &entry.record, now),
                roots: roots.collect(),
                pem: bundle.as_ref().map(TrustBundle::to_pem).unwrap_or_default(),
            })
        }
        FederationAsk::Refresh(name) => {
            let (domain, _) = federation::find(roll, &name).await?;
            let done = match federation::refresh(roll, &domain, &clock(now)).await {
                Ok(outcome) => format!("{domain}: {}", said(outcome)),
                Err(error) => {
                    return Err(FederationAskError::Refresh { trust_domain: domain, error });
                }
            };
            shown(roll, &domain, now, done).await
        }
        FederationAsk::Remove(name) => {
            federation::remove(roll, &name).await?;
            audit("federation_removed", &name, "");
            let done = format!("{name} is federated no longer; its connections end in seconds");
            Ok(FederationAnswer::Done { done, federation: None })
        }
    }
}

async fn add(
    roll: &Roll,
    now: UnixSeconds,
    request: &AddRequest,
) -> Result<FederationAnswer, FederationAskError> {
    let domain = federation::add(roll, request, now).await?;
    audit("federation_added", domain.as_str(), &request.url);
    let first = match federation::refresh(roll, &domain, &clock(now)).await {
        Ok(outcome) => said(outcome),
        Err(error) => format!("not fetched yet ({}), will be tried again: {error}", error.word()),
    };
    shown(roll, &domain, now, format!("{domain} is federated; {first}")).await
}

fn audit(outcome: &str, trust_domain: &str, url: &str) {
    tracing::info!(target: "audit", outcome, trust_domain, url, "federation changed");
}

async fn shown(
    roll: &Roll,
    domain: &TrustDomain,
    now: UnixSeconds,
    done: String,
) -> Result<FederationAnswer, FederationAskError> {
    let (domain, entry) = federation::find(roll, domain.as_str()).await?;
    let federation = Some(line(&domain, &entry.record, now));
    Ok(FederationAnswer::Done { done, federation })
}

/// A question takes seconds, so one reading of the clock judges all of it.
fn clock(now: UnixSeconds) -> Clock {
    Clock::new(move || UnixTime::since_unix_epoch(Duration::from_secs(now)))
}

fn said(outcome: Outcome) -> String {
    match outcome {
        Outcome::Changed { sequence, roots } => {
            format!(
                "fetched: sequence {sequence}, {roots} root{}",
                if roots == 1 { "" } else { "s" }
            )
        }
        Outcome::Unchanged { sequence } => format!("fetched: sequence {sequence}, as before"),
        Outcome::Overtaken => "changed by somebody else at the same moment".to_owned(),
    }
}

fn bundle(domain: &TrustDomain, record: &FederationRecord) -> Option<TrustBundle> {
    federation::bundle(domain.clone(), record.bundle.as_ref()?).ok()
}

fn line(domain: &TrustDomain, record: &FederationRecord, now: UnixSeconds) -> FederationLine {
    FederationLine {
        trust_domain: domain.to_string(),
        profile: record.profile.word().to_owned(),
        url: record.url.clone(),
        endpoint_spiffe_id: record.endpoint_id.clone(),
        unlogged: record.unlogged,
        sequence: record.bundle.as_ref().map(|held| held.sequence),
        hash: bundle(domain, record).map(|bundle| bundle.hash().to_string()),
        fetched: record.bundle.as_ref().map(|held| held.fetched),
        failure: record.failure.clone(),
        now,
    }
}

impl fmt::Display for FederationLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, profile, url, .. } = self;
        write!(f, "{trust_domain}  {profile}  {url}  ")?;
        match (self.sequence, self.fetched) {
            (None, _) | (_, None) => write!(f, "no bundle yet")?,
            (Some(sequence), Some(0)) => write!(f, "sequence {sequence}, as added")?,
            (Some(sequence), Some(at)) => {
                let age = Duration::from_secs(self.now.saturating_sub(at));
                let age = humantime::format_duration(age);
                write!(f, "sequence {sequence}, fetched {age} ago")?;
            }
        }
        if self.unlogged {
            write!(f, "  unlogged")?;
        }
        if let Some(failure) = &self.failure {
            write!(
                f,
                "  FAILING ({}, {} in a row): {}",
                failure.word,
                failure.attempts,
                shown_text(&failure.why)
            )?;
        }
        Ok(())
    }
}

impl From<PassedOver> for PassedOverLine {
    fn from(it: PassedOver) -> Self {
        Self { name: it.name(), reason: it.word.to_owned(), why: it.why }
    }
}

impl fmt::Display for PassedOverLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason, why } = self;
        write!(f, "{name}  NOT BELIEVED ({reason}): {why}")
    }
}

impl fmt::Display for FederationAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { done, .. } => writeln!(f, "{done}"),
            Self::List { federations, passed_over } => {
                federations.iter().try_for_each(|line| writeln!(f, "{line}"))?;
                passed_over.iter().try_for_each(|it| writeln!(f, "{it}"))
            }
            Self::Show { federation, roots, pem } => {
                writeln!(f, "{federation}")?;
                if let Some(id) = &federation.endpoint_spiffe_id {
                    writeln!(f, "endpoint {id}")?;
                }
                if let Some(hash) = &federation.hash {
                    writeln!(f, "bundle hash {hash}")?;
                }
                roots.iter().try_for_each(|root| writeln!(f, "root sha256 {root}"))?;
                write!(f, "{pem}")
            }
        }
    }
}
