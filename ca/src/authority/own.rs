//! The CA's own SVID on the reserved path, which its TLS port presents. Issued in memory,
//! logged and journalled like any other.
//!
//! Never: writes the private key anywhere.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::bundle::RootId;
use myelin_identity::id::SpiffeId;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{Authority, IssueError};
use crate::check;
use crate::journal::{Batch, Hex, IssuedRecord};
use crate::random;
use crate::signer::SignerError;
use crate::store::Commit;
use crate::template::{Leaf, Serial, Validity};

/// A fresh SVID of the CA itself.
pub struct OwnSvid {
    /// Leaf, issuing intermediate, then every root of the bundle: who comes the first time knows
    /// only their hash.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivatePkcs8KeyDer<'static>,
    pub validity: Validity,
    pub dress: Dress,
}

/// What the TLS port is dressed for: the ladder's step, and the root above the signer.
pub type Dress = (u64, Option<RootId>);

impl Authority {
    /// Issues the CA's own SVID, with a new key.
    pub async fn issue_own(&self) -> Result<OwnSvid, IssueError> {
        let now = self.clock.seconds();
        // Before all it stands for: a ladder that moves from here on has another, and this SVID is not
        // taken for that one's.
        let dress = self.dress();
        let signer = self.rotation.signer();
        let bundle = self.rotation.bundle();
        let key = KeyPair::generate().map_err(SignerError::from)?;
        let leaf = Leaf {
            spiffe_id: SpiffeId::ca(bundle.trust_domain()).to_string(),
            addresses: self.settings.own_addresses.clone(),
            names: self.settings.own_names.clone(),
            serial: Serial::from_random(random::bytes().map_err(|_| IssueError::NoRandomness)?),
            validity: self.settings.lifetimes.validity(Duration::ZERO, now, signer.validity())?,
            public_key: key.subject_public_key_info(),
        };
        let certificate = signer.sign_leaf(&leaf)?;
        check::leaf(&certificate, &leaf, signer.subject())?;
        let place = self.log_own(&certificate, signer.certificate()).await?;
        let record = IssuedRecord {
            spiffe_id: leaf.spiffe_id.clone(),
            attestor: "self".to_owned(),
            host: Hex(Vec::new()),
            lineage: Hex(Vec::new()),
            generation: 0,
            issued: now,
            not_before: leaf.validity.not_before,
            not_after: leaf.validity.not_after,
            leaf_sha256: Hex(digest(&SHA256, &certificate).as_ref().to_vec()),
            logged: Some(place),
        };
        let mut batch = Batch::default();
        batch.create(&Hex(leaf.serial.as_bytes().to_vec()).to_string(), &record);
        match self.journal.commit(batch).await? {
            Commit::Committed { .. } => {}
            Commit::Conflict => return Err(IssueError::Refused(super::Reason::Contended)),
        }
        let mut chain = super::chain(&certificate, signer.certificate());
        chain.extend(bundle.roots().cloned());
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(OwnSvid { chain, key, validity: leaf.validity, dress })
    }
}
