//! Whether what an endpoint said may take the place of what we hold. Pure. Called by `refresh`.
//!
//! Never: a step back in sequence, two contents under one sequence, a bundle of nothing but expired
//! roots.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::{
    BundleError, ForeignBundle, ForeignError, SpiffeDocument, TrustBundle,
};
use myelin_identity::id::TrustDomain;
use rustls_pki_types::CertificateDer;

use crate::clock::UnixSeconds;
use crate::journal::{Blob, ForeignRecord};

/// The document may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says what we hold.
    Unchanged,
    /// It says something new.
    Changed,
}

/// Why a document is not taken: the other domain's endpoint is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the endpoint's document is no usable bundle: {0}")]
    Malformed(#[from] BundleError),
    #[error(transparent)]
    TooBig(#[from] ForeignError),
    #[error(
        "the endpoint's sequence went back from {held} to {seen}; if that domain was restored from \
         a backup, remove it and add it again with the bundle of its operators"
    )]
    WentBack { held: u64, seen: u64 },
    #[error(
        "the endpoint says sequence {sequence} again with other roots than before; ask its operators"
    )]
    Contradiction { sequence: u64 },
    #[error("every root of the endpoint's bundle is expired or not valid yet; ask its operators")]
    NoValidRoot,
}

impl Unfit {
    pub const WORDS: [&'static str; 5] =
        ["malformed", "too_big", "went_back", "contradiction", "no_valid_root"];

    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooBig(_) => "too_big",
            Self::WentBack { .. } => "went_back",
            Self::Contradiction { .. } => "contradiction",
            Self::NoValidRoot => "no_valid_root",
        }
    }
}

/// `held` is the last good bundle.
pub(super) fn judge(
    trust_domain: &TrustDomain,
    held: Option<&ForeignRecord>,
    json: &str,
    now: UnixSeconds,
) -> Result<(SpiffeDocument, Verdict), Unfit> {
    let document = SpiffeDocument::read(trust_domain.clone(), json)?;
    ForeignBundle::check_size(&document.bundle)?;
    if !document.bundle.has_valid_root(now) {
        return Err(Unfit::NoValidRoot);
    }
    let Some(held) = held else { return Ok((document, Verdict::Changed)) };
    let seen = document.bundle.generation();
    if seen < held.sequence {
        return Err(Unfit::WentBack { held: held.sequence, seen });
    }
    let same_roots = bundle(trust_domain.clone(), held)?.hash() == document.bundle.hash();
    let verdict = match (seen == held.sequence, same_roots) {
        (true, true) => Verdict::Unchanged,
        // A publisher that says no sequence at all may change its roots without one.
        (true, false) if seen != 0 => return Err(Unfit::Contradiction { sequence: seen }),
        _ => Verdict::Changed,
    };
    Ok((document, verdict))
}

/// What rests of a foreign bundle, as a bundle.
pub fn bundle(trust_domain: TrustDomain, held: &ForeignRecord) -> Result<TrustBundle, BundleError> {
    let roots = held.roots_der.iter().map(|der| CertificateDer::from(der.0.clone())).collect();
    TrustBundle::new(trust_domain, held.sequence, roots)
}

/// What will rest of a document that was taken.
pub(super) fn record(
    document: &SpiffeDocument,
    fetched: UnixSeconds,
    changed: UnixSeconds,
) -> ForeignRecord {
    ForeignRecord {
        sequence: document.bundle.generation(),
        roots_der: document.bundle.roots().map(|root| Blob(root.to_vec())).collect(),
        refresh_hint: document.refresh_hint_seconds,
        fetched,
        changed,
    }
}
