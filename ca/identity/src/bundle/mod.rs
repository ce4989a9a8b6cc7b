//! The trust bundle: the roots of one trust domain, at one generation, with its hash and its forms
//! on paper; and the deny list. Called by `verify`, by the CA that makes them and the sidecars that
//! hold them.
//! Never: a clock, or trust in the store that a bundle came from (who accepts one checks its hash
//! or channel).

// SPDX-License-Identifier: Apache-2.0

mod deny;
mod foreign;
mod forms;
mod logs;
mod succession;

#[cfg(test)]
mod tests;

pub use crate::x509::{
    CaFault, HexError, MAX_CERTIFICATE_BYTES, Malformed, RootId, Serial, SerialError,
};
pub use deny::{DenyEntry, DenyError, DenyList, DenySubject, MAX_DENY_ENTRIES, SignedDenyList};
pub use foreign::{
    ForeignBundle, ForeignBundles, ForeignError, MAX_FOREIGN, MAX_FOREIGN_BUNDLE_BYTES, Trust,
    TrustBundles,
};
pub use forms::{MAX_FORM_BYTES, SpiffeDocument};
pub use succession::{
    MAX_STEPS, Rung, SignedStep, StepError, SuccessionError, TrustStep, came_back, follow,
};

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::id::TrustDomain;
use crate::log::LogKey;
use crate::x509::{CaFacts, Validity, hex, sha256, unhex32};

/// A rotation step holds two roots; federation and a botched ladder may double that a few times.
/// Each root is one name to try in every verification, so the number is also a bound of CPU.
pub const MAX_ROOTS: usize = 16;

/// The certificates that one trust domain's peers must chain to. Immutable; a change is a new
/// bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    generation: u64,
    roots: Vec<Root>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) id: RootId,
    pub(crate) validity: Validity,
    pub(crate) path_length: Option<u32>,
    pub(crate) anchor: TrustAnchor<'static>,
    der: CertificateDer<'static>,
    /// The log of what it issues, if its certificate names none.
    stated: Option<LogKey>,
}

/// What a root says about whom it signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootAbove {
    pub id: RootId,
    /// In Unix seconds.
    pub not_after: u64,
    /// How many CAs may stand below it in a path; `None` is any number.
    pub path_length: Option<u32>,
}

/// SHA-256 over the sorted SHA-256 of each root's DER; where the bundle states a root's log, of both
/// (`Root::hashed`). Displayed and parsed as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleHash([u8; 32]);

/// Why certificates or a text make no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("the bundle has {count} roots; expected 1 to {MAX_ROOTS}")]
    RootCount { count: usize },
    #[error("root {position} of the bundle cannot be used: {fault}")]
    Root { position: usize, fault: CaFault },
    #[error("root {position} of the bundle is not self-issued; put roots there, not intermediates")]
    NotSelfIssued { position: usize },
    #[error("root {position} of the bundle is there twice; remove one")]
    Duplicate { position: usize },
    #[error("the bundle states the log {why}")]
    StatedLog { why: &'static str },
    #[error("the bundle has {bytes} bytes, more than {limit}")]
    TooBig { bytes: usize, limit: usize },
    #[error("the bundle is not PEM with CERTIFICATE blocks only: {why}")]
    Pem { why: &'static str },
    #[error("the bundle is no SPIFFE trust bundle (JWKS): {why}")]
    Json { why: String },
}

impl TrustBundle {
    /// Takes 1 to [`MAX_ROOTS`] self-signed CA certificates with ECDSA P-256 or P-384 keys.
    pub fn new(
        trust_domain: TrustDomain,
        generation: u64,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        if !(1..=MAX_ROOTS).contains(&roots.len()) {
            return Err(BundleError::RootCount { count: roots.len() });
        }
        let mut checked: Vec<Root> = Vec::with_capacity(roots.len());
        for (index, der) in roots.into_iter().enumerate() {
            let position = index + 1;
            let root = Root::read(der, position)?;
            if checked.iter().any(|other| other.id == root.id) {
                return Err(BundleError::Duplicate { position });
            }
            checked.push(root);
        }
        Ok(Self { trust_domain, generation, roots: checked })
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Grows with each change of the roots; 0 for a bundle learned at first contact.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The root certificates, in the order they were given in.
    pub fn roots(&self) -> impl ExactSizeIterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    pub fn root_ids(&self) -> impl ExactSizeIterator<Item = RootId> {
        self.roots.iter().map(|root| root.id)
    }

    pub fn holds_root(&self, id: &RootId) -> bool {
        self.roots.iter().any(|root| root.id == *id)
    }

    pub fn root_der(&self, id: &RootId) -> Option<&CertificateDer<'static>> {
        self.roots.iter().find(|root| root.id == *id).map(|root| &root.der)
    }

    /// From and until when a root is valid, in Unix seconds.
    pub fn root_validity(&self, id: &RootId) -> Option<(u64, u64)> {
        let root = self.roots.iter().find(|root| root.id == *id)?;
        Some((root.validity.not_before, root.validity.not_after))
    }

    /// The root whose key signed this CA certificate, if one of these did.
    pub fn issuer_of(&self, intermediate: &CertificateDer<'_>) -> Option<RootId> {
        self.root_above(intermediate).ok().map(|root| root.id)
    }

    /// The root that signed this CA certificate with nothing between them. Its own times and uses
    /// are not judged here.
    pub fn root_above(&self, issuer_der: &[u8]) -> Result<RootAbove, CaFault> {
        let issuer = CaFacts::read(issuer_der)?;
        self.roots
            .iter()
            .find(|root| {
                CaFacts::read(&root.der).is_ok_and(|root| issuer.is_issued_by(&root).is_ok())
            })
            .map(|root| RootAbove {
                id: root.id,
                not_after: root.validity.not_after,
                path_length: root.path_length,
            })
            .ok_or(CaFault::BadSignature)
    }

    /// Whether any root at all could vouch for somebody at `now` (Unix seconds).
    pub fn has_valid_root(&self, now: u64) -> bool {
        let valid = |v: &Validity| (v.not_before..=v.not_after).contains(&now);
        self.roots.iter().any(|root| valid(&root.validity))
    }

    /// Depends on the set of roots and their stated logs only: neither on their order nor on name and
    /// generation.
    pub fn hash(&self) -> BundleHash {
        BundleHash::of_roots(self.roots.iter().map(Root::hashed))
    }

    pub(crate) fn anchors(&self) -> Vec<TrustAnchor<'_>> {
        self.checked_roots().iter().map(|root| root.anchor.clone()).collect()
    }

    pub(crate) fn checked_roots(&self) -> &[Root] {
        &self.roots
    }
}

impl Root {
    fn read(der: CertificateDer<'static>, position: usize) -> Result<Self, BundleError> {
        let in_root = |fault| BundleError::Root { position, fault };
        let facts = CaFacts::read(&der).map_err(in_root)?;
        if !facts.is_self_issued() {
            return Err(BundleError::NotSelfIssued { position });
        }
        facts.is_issued_by(&facts).map_err(in_root)?;
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| in_root(CaFault::Malformed(Malformed::NotDer)))?
            .to_owned();
        Ok(Self {
            id: RootId::of(&der),
            validity: facts.validity,
            path_length: facts.path_length,
            anchor,
            der,
            stated: None,
        })
    }
}

impl BundleHash {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn of_roots(ids: impl Iterator<Item = RootId>) -> Self {
        let mut ids: Vec<RootId> = ids.collect();
        ids.sort_unstable();
        let all: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        Self(sha256(&all))
    }
}

impl FromStr for BundleHash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        unhex32(text).map(Self)
    }
}

impl fmt::Display for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("generation", &self.generation)
            .field("roots", &self.root_ids().collect::<Vec<_>>())
            .field("stated_logs", &self.stated_logs().collect::<Vec<_>>())
            .finish()
    }
}
