//! How the CA stands with its issuers, for people and for the metrics.
//!
//! Never: opens a key.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::svid::P256Spki;
use serde::{Deserialize, Serialize};

use super::{IssuerError, Issuers};
use crate::check::intermediate_key;
use crate::clock::UnixSeconds;
use crate::journal::{Hex, IssuerRecord, RequestRecord, requests_of};
use crate::rotation::{cover, holds_root_key, issuing_name, successors};
use crate::signer::validity_of;
use crate::template::Validity;

/// Where the root's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootKey {
    /// This CA holds it and signs its intermediates itself.
    Here,
    /// On another machine, or somebody else's.
    Elsewhere,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerStatus {
    pub trust_domain: String,
    pub bundle: String,
    pub root_key: RootKey,
    /// None: the CA waits for its first.
    pub issuing: Option<IssuerLine>,
    pub successors: Vec<IssuerLine>,
    pub requests: Vec<RequestLine>,
    /// Until when the issuers that are here follow each other without a gap.
    pub covered_until: Option<UnixSeconds>,
    /// 50, 25 or 10: at most this part of an issuer's life is left, in percent, and no successor
    /// waits. Never for a CA that holds its root's key.
    pub alarm: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerLine {
    /// SHA-256 of the public key.
    pub key: String,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    pub key: String,
    pub created: UnixSeconds,
}

impl Issuers {
    pub(super) async fn status(&self, now: UnixSeconds) -> Result<IssuerStatus, IssuerError> {
        let Self { journal, replica, bundle, .. } = self;
        let root_key =
            if holds_root_key(journal).await? { RootKey::Here } else { RootKey::Elsewhere };
        let issuing = journal.read::<IssuerRecord>(&issuing_name(replica)).await?;
        let waiting = successors(journal, replica).await?;
        let validities: Vec<Validity> = waiting.iter().map(|(_, validity)| *validity).collect();
        let covered = match &issuing {
            Some(entry) => Some(cover(validity_of(&entry.record.certificate_der.0)?, &validities)),
            None => None,
        };
        let alarm = covered.filter(|_| root_key == RootKey::Elsewhere).and_then(|c| c.alarm(now));
        let requests = journal.page::<RequestRecord>(&requests_of(replica), None).await?;
        let requests = requests.into_iter().map(|entry| RequestLine {
            key: entry.key.rsplit('/').next().unwrap_or_default().to_owned(),
            created: entry.record.created,
        });
        Ok(IssuerStatus {
            trust_domain: bundle.trust_domain().to_string(),
            bundle: bundle.hash().to_string(),
            root_key,
            issuing: issuing.map(|entry| line(&entry.record)).transpose()?,
            successors: waiting
                .iter()
                .map(|(entry, _)| line(&entry.record))
                .collect::<Result<_, _>>()?,
            requests: requests.collect(),
            covered_until: covered.map(|covered| covered.until),
            alarm,
        })
    }
}

fn line(record: &IssuerRecord) -> Result<IssuerLine, IssuerError> {
    let der = &record.certificate_der.0;
    let key: P256Spki = intermediate_key(der)?;
    let Validity { not_before, not_after } = validity_of(der)?;
    Ok(IssuerLine { key: Hex(key.fingerprint().to_vec()).to_string(), not_before, not_after })
}
