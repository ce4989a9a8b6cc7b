//! The deny list: who is refused although the certificate is good, until when, and who says so.
//! Made and signed by the CA; asked at every use through `verify` (which knows what a peer is).
//! Never: patterns, an entry without an end, or a list that is believed without its signature.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use rustls_pki_types::{CertificateDer, UnixTime};

use super::TrustBundle;
use crate::id::{SpiffeId, TrustDomain};
use crate::x509::{CaFacts, CaFault, Serial};

/// An entry lives no longer than the SVID it denies (24 h): 16 384 denials a day is far beyond an
/// incident, and the list then still fits gRPC's 4 MiB message with IDs of ordinary length.
pub const MAX_DENY_ENTRIES: usize = 16_384;

/// Sets these bytes apart from everything else that an intermediate signs.
const SIGNED_LABEL: &[u8] = b"myelin deny list v1\0";

/// An epoch of denials, in canonical form: sorted, each subject once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    epoch: u64,
    said_at: u64,
    ids: BTreeMap<SpiffeId, u64>,
    serials: BTreeMap<Serial, u64>,
}

/// `until` in Unix seconds, itself included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyEntry {
    pub subject: DenySubject,
    pub until: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenySubject {
    Id(SpiffeId),
    Serial(Serial),
}

/// A deny list as the CA sends it. Nothing can be asked of it before [`SignedDenyList::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDenyList {
    pub list: DenyList,
    /// ASN.1 ECDSA P-256 with SHA-256 over [`DenyList::signed_bytes`].
    pub signature: Vec<u8>,
    /// The issuing intermediate that signed.
    pub signer: CertificateDer<'static>,
}

/// Why a deny list is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenyError {
    #[error("the deny list has more than {MAX_DENY_ENTRIES} entries; let old ones end")]
    TooMany,
    #[error("the deny list's signer is no CA that we can use: {0}")]
    Signer(CaFault),
    #[error("the deny list's signer is a root itself; an issuing intermediate has to sign")]
    SignerIsRoot,
    #[error(
        "the deny list's signer was not issued by a root of the bundle (generation {generation})"
    )]
    UntrustedSigner { generation: u64 },
    #[error(
        "the deny list's signer is not valid now: now {now}, \
         notBefore {not_before}, notAfter {not_after}"
    )]
    SignerNotValid { now: u64, not_before: u64, not_after: u64 },
    #[error("the deny list's signature is not by its signer over this list")]
    BadSignature,
}

impl DenyList {
    /// Of a subject named twice the later end counts. `said_at` in Unix seconds.
    pub fn new(
        epoch: u64,
        said_at: u64,
        entries: impl IntoIterator<Item = DenyEntry>,
    ) -> Result<Self, DenyError> {
        let mut list = Self { epoch, said_at, ..Self::default() };
        for DenyEntry { subject, until } in entries {
            let seen = match subject {
                DenySubject::Id(id) => list.ids.entry(id).or_default(),
                DenySubject::Serial(serial) => list.serials.entry(serial).or_default(),
            };
            *seen = until.max(*seen);
            if list.ids.len() + list.serials.len() > MAX_DENY_ENTRIES {
                return Err(DenyError::TooMany);
            }
        }
        Ok(list)
    }

    /// Grows by one at each change, never back; who holds a list refuses a lower one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the CA said so, in Unix seconds: a heartbeat renews it, so staleness is visible.
    pub fn said_at(&self) -> u64 {
        self.said_at
    }

    pub fn entries(&self) -> impl Iterator<Item = DenyEntry> {
        let ids = self
            .ids
            .iter()
            .map(|(id, &until)| DenyEntry { subject: DenySubject::Id(id.clone()), until });
        let serials = self.serials.iter().map(|(serial, &until)| DenyEntry {
            subject: DenySubject::Serial(serial.clone()),
            until,
        });
        ids.chain(serials)
    }

    /// Until when this ID or this serial is denied, if it still is at `now`.
    pub fn denied_until(&self, id: &SpiffeId, serial: &Serial, now: UnixTime) -> Option<u64> {
        let ends = [self.ids.get(id), self.serials.get(serial)];
        ends.into_iter().flatten().copied().filter(|&until| now.as_secs() <= until).max()
    }

    /// Until when everything under this ID is denied, if it still is at `now`.
    pub fn id_denied_until(&self, id: &SpiffeId, now: UnixTime) -> Option<u64> {
        self.ids.get(id).copied().filter(|&until| now.as_secs() <= until)
    }

    /// The canonical bytes that get signed: every part has a length before it, so that no two lists
    /// share their bytes, and the trust domain is in it, so that no other domain's list passes.
    pub fn signed_bytes(&self, trust_domain: &TrustDomain) -> Vec<u8> {
        let mut out = SIGNED_LABEL.to_vec();
        put(&mut out, trust_domain.as_str().as_bytes());
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.said_at.to_be_bytes());
        out.extend((self.ids.len() as u64).to_be_bytes());
        for (id, until) in &self.ids {
            put(&mut out, id.as_str().as_bytes());
            out.extend(until.to_be_bytes());
        }
        out.extend((self.serials.len() as u64).to_be_bytes());
        for (serial, until) in &self.serials {
            put(&mut out, serial.as_bytes());
            out.extend(until.to_be_bytes());
        }
        out
    }
}

impl SignedDenyList {
    /// Yields the list if an intermediate CA directly under a root of `bundle`, valid at `now`,
    /// signed it for this trust domain. Whether its epoch is new is the holder's question.
    pub fn verify(&self, bundle: &TrustBundle, now: UnixTime) -> Result<&DenyList, DenyError> {
        let signer = CaFacts::read(&self.signer).map_err(DenyError::Signer)?;
        if signer.is_self_issued() {
            return Err(DenyError::SignerIsRoot);
        }
        let now = now.as_secs();
        let validity = bundle
            .roots()
            .filter_map(|root| CaFacts::read(root).ok())
            .find(|root| signer.is_issued_by(root).is_ok())
            .map(|root| [signer.validity, root.validity])
            .ok_or_else(|| DenyError::UntrustedSigner { generation: bundle.generation() })?;
        for crate::x509::Validity { not_before, not_after } in validity {
            if !(not_before..=not_after).contains(&now) {
                return Err(DenyError::SignerNotValid { now, not_before, not_after });
            }
        }
        signer
            .p256_key()
            .ok_or(DenyError::Signer(CaFault::WrongKey))?
            .verify(&self.list.signed_bytes(bundle.trust_domain()), &self.signature)
            .map_err(|_| DenyError::BadSignature)?;
        Ok(&self.list)
    }
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend((part.len() as u64).to_be_bytes());
    out.extend(part);
}
