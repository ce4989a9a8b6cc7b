//! An operator's part in a CA whose root is elsewhere: requests for intermediates, the import of
//! what the root signed, and how long what is here will do.
//!
//! Never: makes a root, or believes a certificate that came back before it is judged whole.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::bundle::TrustBundle;
use serde::{Deserialize, Serialize};

use crate::check::Unfit;
use crate::clock::UnixSeconds;
use crate::journal::{Journal, JournalError};
use crate::replica::ReplicaId;
use crate::rotation::RotationError;
use crate::signer::{SignerError, Vault};

mod import;
mod request;
mod status;

pub use status::{IssuerLine, IssuerStatus, RequestLine, RootKey};

/// Requests that may wait for an answer: a decade of intermediates of a year, and some that failed.
const MAX_REQUESTS: usize = 16;

/// A question about issuers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssuerAsk {
    Request {
        count: usize,
    },
    /// The requests that wait for an answer, once more.
    Again,
    Import {
        pem: String,
    },
    Status,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssuerAnswer {
    Requested(Vec<RequestMade>),
    Imported(Imported),
    Status(IssuerStatus),
}

/// A request to carry to the root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestMade {
    /// SHA-256 of the public key: compare it on the root's machine.
    pub key: String,
    /// What it asks for beyond an intermediate: the root's machine shows the same.
    pub extensions: Vec<String>,
    pub csr_pem: String,
}

/// An intermediate that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    pub key: String,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    /// Whether it waits for its turn; otherwise the CA issues with it from now on.
    pub waits: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    #[error(
        "this CA holds the key of its own root and signs its intermediates itself; a CA below another root begins with serve --root-cert on an empty data directory"
    )]
    OwnRoot,
    #[error("--count {found} is outside 1 to {MAX_REQUESTS}")]
    Count { found: usize },
    #[error(
        "{waiting} requests wait for an answer already, and {MAX_REQUESTS} may; import their certificates first"
    )]
    TooMany { waiting: usize },
    #[error("the file is not PEM with one CERTIFICATE: {0}")]
    Pem(String),
    #[error(
        "certificate {position} of the file is not a root of this CA's bundle; an intermediate must be signed by the root itself, with none between"
    )]
    Between { position: usize },
    #[error("the intermediate is refused: {0}")]
    Unfit(#[from] Unfit),
    #[error(
        "the intermediate is refused: its key {key} is none that this CA has asked for; make a request with: myelin-ca issuer request"
    )]
    OtherKey { key: String },
    #[error("the intermediate with key {key} was imported before")]
    Again { key: String },
    #[error(
        "the intermediate is refused: it begins at {not_before} (Unix seconds) and this CA has none yet; import one that is valid now first"
    )]
    NotYet { not_before: UnixSeconds },
    #[error("the intermediate is refused: sidecars would not accept what it issues: {0}")]
    Verifier(myelin_identity::verify::Refusal),
    #[error(
        "another operator changed the issuers at the same moment; look at: myelin-ca issuer status"
    )]
    Raced,
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error("cannot draw random bytes from the operating system")]
    NoRandomness,
    #[error("this needs the CA's keys, which are not open here; please report this")]
    NoVault,
}

/// What it takes to answer.
#[derive(Clone)]
pub struct Issuers {
    pub journal: Journal,
    pub replica: ReplicaId,
    /// `status` does without.
    pub vault: Option<Vault>,
    pub bundle: Arc<TrustBundle>,
}

impl Issuers {
    /// Answers one question.
    pub async fn answer(
        &self,
        now: UnixSeconds,
        ask: IssuerAsk,
    ) -> Result<IssuerAnswer, IssuerError> {
        Ok(match ask {
            IssuerAsk::Request { count } => {
                IssuerAnswer::Requested(self.request(now, count).await?)
            }
            IssuerAsk::Again => IssuerAnswer::Requested(self.again().await?),
            IssuerAsk::Import { pem } => IssuerAnswer::Imported(self.import(now, &pem).await?),
            IssuerAsk::Status => IssuerAnswer::Status(self.status(now).await?),
        })
    }
}

#[cfg(test)]
mod tests;
