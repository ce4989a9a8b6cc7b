//! What an operator may ask of the CA, apart from how the question arrives: through the admin
//! socket of a running server, or on the store itself when none runs.
//!
//! Never: issues a certificate, or shows a token twice.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::log::LogKey;
use serde::{Deserialize, Serialize};

use crate::authority::registration::{self, EntryError, EntryLine};
use crate::authority::revocation::{self, DenialLine, RevokeError, RevokeRequest, Revoked};
use crate::authority::tokens::{self, TokenError, TokenRequest};
use crate::authority::{Authority, AuthorityError};
use crate::clock::UnixSeconds;
use crate::journal::{AddressRecord, Journal, JournalError, TokenRecord};
use crate::log::{self, Key, LogAnswer, LogAsk, LogError};

mod entries;
mod federation;
mod issuer;
mod revoke;

pub use federation::{
    FederationAnswer, FederationAsk, FederationAskError, FederationLine, PassedOverLine,
};
pub use issuer::{
    Imported, IssuerAnswer, IssuerAsk, IssuerError, IssuerLine, IssuerStatus, Issuers, RequestLine,
    RequestMade, RootKey,
};
mod rotate;

pub use rotate::{RotateAsk, Rotated};

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    CreateToken(TokenRequest),
    ListTokens,
    ListSvids,
    ShowBundle,
    Issuer(IssuerAsk),
    Revoke(RevokeRequest),
    ListDenials,
    UndoRevocation(u64),
    Federation(FederationAsk),
    CreateEntry(EntryLine),
    ListEntries,
    ShowEntry(String),
    DeleteEntry(String),
    Rotate(RotateAsk),
    ListLogKeys,
    Log(LogAsk),
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Token(TokenMade),
    Tokens(Vec<TokenLine>),
    Svids(Vec<SvidLine>),
    Bundle(BundleShown),
    Issuer(IssuerAnswer),
    Revoked(Revoked),
    Denials(Vec<DenialLine>),
    Undone(DenialLine),
    Federation(FederationAnswer),
    Entry(EntryLine),
    Entries(Vec<EntryLine>),
    Rotated(Rotated),
    LogKeys(Vec<LogKeyLine>),
    Log(LogAnswer),
    /// One line: what failed, what was expected, how to fix it.
    Refused(String),
}

/// A new token: the only time that its text is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenMade {
    pub token: String,
    /// SHA-256 under which the token is listed and audited.
    pub name: String,
    pub spiffe_id: String,
    pub addresses: Vec<IpAddr>,
    pub expires: UnixSeconds,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenLine {
    pub name: String,
    pub spiffe_id: String,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<u16>,
    pub expires: UnixSeconds,
    /// `waiting`, `used` or `expired`.
    pub state: String,
}

/// One log and the key that it signs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogKeyLine {
    /// `root`, or `issuing/` and the replica.
    pub log: String,
    pub origin: String,
    /// As witnesses and readers of signed notes take it.
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvidLine {
    pub spiffe_id: String,
    pub address: IpAddr,
    /// None: every port.
    pub port: Option<u16>,
    pub serial: String,
    pub not_after: UnixSeconds,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BundleShown {
    pub trust_domain: String,
    pub generation: u64,
    pub hash: String,
    pub pem: String,
    pub spiffe_json: String,
}

impl std::fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenMade({})", self.name)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    Federation(#[from] FederationAskError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(
        "no server runs on this data directory; start it (`myelin-ca serve`), then ask again: it alone hears the sidecars and tells them"
    )]
    NeedsServer,
}

/// Answers one question as the running server.
pub async fn answer_running(authority: &Authority, ask: Ask) -> Result<Answer, OperatorError> {
    match ask {
        Ask::Rotate(ask) => Ok(Answer::Rotated(rotate::rotate(authority, ask).await?)),
        Ask::Federation(ask) => {
            let now = authority.clock().seconds();
            Ok(Answer::Federation(federation::answer(authority.roll(), now, ask).await?))
        }
        other => {
            let now = authority.clock().seconds();
            answer(authority.journal(), &authority.bundle(), now, other).await
        }
    }
}

/// Answers one question from the store alone.
pub async fn answer(
    journal: &Journal,
    bundle: &TrustBundle,
    now: UnixSeconds,
    ask: Ask,
) -> Result<Answer, OperatorError> {
    match ask {
        Ask::CreateToken(request) => create_token(journal, bundle, now, &request).await,
        Ask::ListTokens => {
            let all = journal.all::<TokenRecord>().await?;
            Ok(Answer::Tokens(
                all.into_iter().map(|entry| token_line(&entry.key, entry.record, now)).collect(),
            ))
        }
        Ask::ListSvids => list_svids(journal, now).await,
        // Whoever has the keys at hand asks `issuer` itself.
        Ask::Issuer(_) => Err(IssuerError::NoVault.into()),
        Ask::Revoke(request) => {
            let domain = bundle.trust_domain();
            Ok(Answer::Revoked(revoke::revoke(journal, domain, now, &request).await?))
        }
        Ask::ListDenials => Ok(Answer::Denials(revocation::list(journal, now).await?)),
        Ask::UndoRevocation(number) => {
            Ok(Answer::Undone(revoke::undo(journal, now, number).await?))
        }
        Ask::CreateEntry(asked) => {
            Ok(Answer::Entry(entries::create(journal, bundle, now, &asked).await?))
        }
        Ask::ListEntries => Ok(Answer::Entries(registration::list(journal).await?)),
        Ask::ListLogKeys => {
            let line = |(log, key): (String, LogKey)| LogKeyLine {
                log,
                origin: key.name().to_owned(),
                key: key.to_string(),
            };
            Ok(Answer::LogKeys(Key::all(journal).await?.into_iter().map(line).collect()))
        }
        Ask::Log(ask) => Ok(Answer::Log(log::answer(journal, &ask).await?)),
        Ask::ShowEntry(name) => Ok(Answer::Entry(registration::show(journal, &name).await?)),
        Ask::DeleteEntry(name) => Ok(Answer::Entry(entries::delete(journal, &name).await?)),
        Ask::Rotate(_) | Ask::Federation(_) => Err(OperatorError::NeedsServer),
        Ask::ShowBundle => Ok(Answer::Bundle(BundleShown {
            trust_domain: bundle.trust_domain().to_string(),
            generation: bundle.generation(),
            hash: bundle.hash().to_string(),
            pem: bundle.to_pem(),
            spiffe_json: bundle.to_spiffe_json(),
        })),
    }
}

async fn create_token(
    journal: &Journal,
    bundle: &TrustBundle,
    now: UnixSeconds,
    request: &TokenRequest,
) -> Result<Answer, OperatorError> {
    let made = tokens::create(journal, bundle, request, now).await?;
    tracing::info!(
        target: "audit", outcome = "token_created", id = request.spiffe_id, addresses = ?request.addresses,
        token = %made.name, expires = made.expires, "join token created"
    );
    Ok(Answer::Token(TokenMade {
        token: made.token.reveal(),
        name: made.name.to_string(),
        spiffe_id: request.spiffe_id.clone(),
        addresses: request.addresses.clone(),
        expires: made.expires,
    }))
}

fn token_line(key: &str, record: TokenRecord, now: UnixSeconds) -> TokenLine {
    let state = match &record.used {
        Some(_) => "used",
        None if record.expires <= now => "expired",
        None => "waiting",
    };
    TokenLine {
        name: key.trim_start_matches("token/").to_owned(),
        spiffe_id: record.grant.spiffe_id,
        addresses: record.grant.addresses,
        ports: record.grant.ports,
        expires: record.expires,
        state: state.to_owned(),
    }
}

async fn list_svids(journal: &Journal, now: UnixSeconds) -> Result<Answer, OperatorError> {
    let mut lines = Vec::new();
    let counts = revocation::still_counts(journal, now).await?;
    for entry in journal.all::<AddressRecord>().await? {
        let Ok(address) = entry.key.trim_start_matches("address/").parse() else {
            continue;
        };
        let live = entry.record.claims.into_iter().filter(&counts);
        lines.extend(live.map(|claim| SvidLine {
            spiffe_id: claim.spiffe_id,
            address,
            port: claim.port,
            serial: claim.serial.to_string(),
            not_after: claim.not_after,
        }));
    }
    Ok(Answer::Svids(lines))
}
