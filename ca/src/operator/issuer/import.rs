//! What came back from the root is judged whole, tried with the verifier that sidecars have, and
//! only then takes its place or its turn.
//!
//! Never: imports a certificate for a key that was not made here.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::UnixTime;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::SpiffeId;
use myelin_identity::verify::{self, Role};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Imported, IssuerError, Issuers};
use crate::check::{self, intermediate_key};
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, Blob, Entry, Hex, IssuerRecord, RequestRecord, request_name, successor_name,
};
use crate::random;
use crate::rotation::{holds_root_key, issuing_name, successors};
use crate::signer::{SealedIssuer, Signer};
use crate::store::Commit;
use crate::template::{Leaf, Serial, Validity};

impl Issuers {
    pub(super) async fn import(
        &self,
        now: UnixSeconds,
        pem: &str,
    ) -> Result<Imported, IssuerError> {
        let Self { journal, replica, vault, bundle } = self;
        let vault = vault.as_ref().ok_or(IssuerError::NoVault)?;
        if holds_root_key(journal).await? {
            return Err(IssuerError::OwnRoot);
        }
        let certificate = one_certificate(pem, bundle)?;
        let spki = intermediate_key(&certificate)?;
        let key = Hex(spki.fingerprint().to_vec());
        let issuing = journal.read::<IssuerRecord>(&issuing_name(replica)).await?;
        let Some(request) = journal.read::<RequestRecord>(&request_name(replica, &key)).await?
        else {
            return Err(self.unknown(issuing.as_ref(), &certificate, &key).await?);
        };
        let asked = check::request(&request.record.csr_der.0, bundle.trust_domain().as_str())?;
        let validity = check::imported(&certificate, &asked, bundle, now)?;
        let sealed = SealedIssuer {
            certificate_der: certificate.to_vec(),
            sealed_key: request.record.sealed_key.0.clone(),
        };
        let signer = Signer::open(&sealed, vault)?;
        try_out(&signer, bundle, validity.not_before.max(now))?;
        let waits = issuing.is_some();
        if !waits && validity.not_before > now {
            return Err(IssuerError::NotYet { not_before: validity.not_before });
        }
        let record = IssuerRecord {
            certificate_der: Blob(sealed.certificate_der),
            sealed_key: Blob(sealed.sealed_key),
        };
        let mut batch = Batch::default();
        batch.remove(&request);
        if waits {
            batch.create(&successor_name(replica, validity.not_before, &key), &record);
        } else {
            batch.create(&issuing_name(replica), &record);
        }
        match journal.commit(batch).await? {
            Commit::Committed { .. } => {}
            Commit::Conflict => return Err(IssuerError::Raced),
        }
        let Validity { not_before, not_after } = validity;
        tracing::info!(target: "audit", outcome = "issuer_imported", %key, not_before, not_after, waits, "issuer imported");
        Ok(Imported { key: key.to_string(), not_before, not_after, waits })
    }

    /// Why there is no request for this key: it was answered before, or was never made.
    async fn unknown(
        &self,
        issuing: Option<&Entry<IssuerRecord>>,
        certificate: &CertificateDer<'_>,
        key: &Hex,
    ) -> Result<IssuerError, IssuerError> {
        let waiting = successors(&self.journal, &self.replica).await?;
        let here = waiting.iter().map(|(entry, _)| &entry.record);
        let mut here = here.chain(issuing.map(|entry| &entry.record));
        let key = key.to_string();
        if here.any(|record| record.certificate_der.0 == certificate.as_ref()) {
            return Ok(IssuerError::Again { key });
        }
        Ok(IssuerError::OtherKey { key })
    }
}

/// The first certificate of the file. Roots of the bundle may follow it, as many tools write them.
fn one_certificate(
    pem: &str,
    bundle: &TrustBundle,
) -> Result<CertificateDer<'static>, IssuerError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let mut found = found.map_err(|error| IssuerError::Pem(error.to_string()))?.into_iter();
    let first = found.next().ok_or_else(|| IssuerError::Pem("there is none".to_owned()))?;
    match found.position(|other| bundle.roots().all(|root| *root != other)) {
        // The first has position 1.
        Some(at) => Err(IssuerError::Between { position: at + 2 }),
        None => Ok(first),
    }
}

/// Issues a leaf for the CA itself, shows it to the verifier that sidecars have, and throws it away.
fn try_out(signer: &Signer, bundle: &TrustBundle, at: UnixSeconds) -> Result<(), IssuerError> {
    let key = rcgen::KeyPair::generate().map_err(crate::signer::SignerError::from)?;
    let leaf = Leaf {
        spiffe_id: SpiffeId::ca(bundle.trust_domain()).to_string(),
        addresses: Vec::new(),
        names: Vec::new(),
        serial: Serial::from_random(random::bytes().map_err(|_| IssuerError::NoRandomness)?),
        validity: Validity { not_before: at, not_after: at + 1 },
        public_key: rcgen::PublicKeyData::subject_public_key_info(&key),
    };
    let chain = [signer.sign_leaf(&leaf)?, signer.certificate().clone()];
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    verify::peer(&chain, bundle, at, Role::Server).map_err(IssuerError::Verifier)?;
    Ok(())
}
