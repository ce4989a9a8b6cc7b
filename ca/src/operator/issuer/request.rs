//! New keys, and the requests for their certificates; and those that wait for an answer, once more.
//!
//! Never: shows a key.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::log::{ISSUER_LOG_OID, named_log_extension};
use myelin_identity::pem;
use myelin_identity::svid::P256Spki;

use super::{IssuerError, Issuers, MAX_REQUESTS, RequestMade};
use crate::check;
use crate::clock::UnixSeconds;
use crate::journal::{Batch, Blob, Hex, RequestRecord, request_name, requests_of};
use crate::log::Which;
use crate::rotation::{holds_root_key, names};
use crate::signer::request_issuer;
use crate::store::Commit;
use crate::template::{Extension, IssuerTemplate, Serial, Validity};

impl Issuers {
    pub(super) async fn request(
        &self,
        now: UnixSeconds,
        count: usize,
    ) -> Result<Vec<RequestMade>, IssuerError> {
        let Self { journal, replica, vault, bundle } = self;
        let vault = vault.as_ref().ok_or(IssuerError::NoVault)?;
        if !(1..=MAX_REQUESTS).contains(&count) {
            return Err(IssuerError::Count { found: count });
        }
        if holds_root_key(journal).await? {
            return Err(IssuerError::OwnRoot);
        }
        let waiting = journal.page::<RequestRecord>(&requests_of(replica), None).await?.len();
        if waiting + count > MAX_REQUESTS {
            return Err(IssuerError::TooMany { waiting });
        }
        let trust_domain = bundle.trust_domain().to_string();
        // Serial and validity are the root's to choose; the request does not carry them.
        let template = IssuerTemplate {
            common_name: format!("Myelin issuing CA of {trust_domain}"),
            trust_domain,
            serial: Serial::from_random([0; 16]),
            validity: Validity { not_before: now, not_after: now },
            path_length: Some(0),
            extensions: self.named_logs().await?,
        };
        let (mut made, mut batch) = (Vec::new(), Batch::default());
        for _ in 0..count {
            let request = request_issuer(&template, vault)?;
            let key = key_name(&request.public_key);
            let record = RequestRecord {
                created: now,
                csr_der: Blob(request.csr_der.clone()),
                sealed_key: Blob(request.sealed_key),
            };
            batch.create(&request_name(replica, &key), &record);
            made.push(shown(key.to_string(), &request.csr_der, &template.extensions));
        }
        match journal.commit(batch).await? {
            Commit::Committed { .. } => {}
            Commit::Conflict => return Err(IssuerError::Raced),
        }
        for RequestMade { key, .. } in &made {
            tracing::info!(target: "audit", outcome = "issuer_requested", key, "issuer requested");
        }
        Ok(made)
    }

    /// The log of what the intermediate will issue; and the one that it will be in itself, if its
    /// root's certificate cannot say so.
    async fn named_logs(&self) -> Result<Vec<Extension>, IssuerError> {
        let mut named = names(&self.journal, Which::Issuing(&self.replica)).await?;
        named.extend(self.bundle.stated_logs().next().map(|(_, log)| Extension {
            oid: ISSUER_LOG_OID.to_vec(),
            der: named_log_extension(log),
        }));
        Ok(named)
    }

    /// What was asked for and is not answered: a file that was lost on its way is made again.
    pub(super) async fn again(&self) -> Result<Vec<RequestMade>, IssuerError> {
        let Self { journal, replica, bundle, .. } = self;
        let trust_domain = bundle.trust_domain().as_str();
        let waiting = journal.page::<RequestRecord>(&requests_of(replica), None).await?;
        let shown = waiting.into_iter().map(|entry| {
            let csr_der = entry.record.csr_der.0;
            let asked = check::request(&csr_der, trust_domain)?;
            let key = Hex(asked.public_key.fingerprint().to_vec()).to_string();
            Ok(shown(key, &csr_der, &asked.extensions))
        });
        shown.collect()
    }
}

fn shown(key: String, csr_der: &[u8], extensions: &[Extension]) -> RequestMade {
    let extensions = extensions.iter().map(Extension::to_string).collect();
    RequestMade { key, extensions, csr_pem: pem::encode("CERTIFICATE REQUEST", csr_der) }
}

/// SHA-256 of a public key that this CA has made: P-256 by construction.
fn key_name(spki: &[u8]) -> Hex {
    let key = P256Spki::try_from(spki).expect("the vault makes P-256 keys only");
    Hex(key.fingerprint().to_vec())
}
