//! Bundles of more than one trust domain: those of the domains that we federate with, and the view
//! in which each is asked for its own domain only. Called by `verify`, by the CA that fetches them
//! and by the sidecars that hold them.
//! Never: one domain's roots for another domain's names; there is no way to ask for "any root".

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use super::TrustBundle;
use crate::id::TrustDomain;

/// A mesh federates with a handful of others; each is verified under its own roots only, so the
/// number costs memory and bytes on each watch, not CPU in a verification.
pub const MAX_FOREIGN: usize = 32;

/// Roots of one foreign domain in DER: sixteen of a kilobyte each, twice over. With
/// [`MAX_FOREIGN`] of them an update stays far below what a gRPC message may hold.
pub const MAX_FOREIGN_BUNDLE_BYTES: usize = 32 * 1024;

/// The bundle of a trust domain that is not ours, and what was agreed about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignBundle {
    pub bundle: Arc<TrustBundle>,
    /// The operator accepts that this domain's certificates come without a log's proof.
    pub unlogged: bool,
}

/// All that we federate with, at one epoch. Immutable; a change is a new set with a higher epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignBundles {
    epoch: u64,
    /// Sorted by trust domain.
    bundles: Vec<ForeignBundle>,
}

/// Our own bundle beside the foreign ones that this process may use. Clones share everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundles {
    own: Arc<TrustBundle>,
    foreign: Arc<ForeignBundles>,
}

/// What a verification is asked under: a borrowed [`TrustBundles`], or one bundle alone.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    own: &'a TrustBundle,
    foreign: &'a [ForeignBundle],
}

/// Why bundles make no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    #[error("{count} foreign trust domains, more than {MAX_FOREIGN}")]
    TooMany { count: usize },
    #[error("trust domain {0} is there twice")]
    Twice(TrustDomain),
    #[error("the roots of {trust_domain} have {bytes} bytes, more than {MAX_FOREIGN_BUNDLE_BYTES}")]
    TooBig { trust_domain: TrustDomain, bytes: usize },
}

impl ForeignBundle {
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// Whether its roots fit beside those of others.
    pub fn check_size(bundle: &TrustBundle) -> Result<(), ForeignError> {
        let bytes = bundle.roots().map(|root| root.len()).sum();
        if bytes > MAX_FOREIGN_BUNDLE_BYTES {
            let trust_domain = bundle.trust_domain().clone();
            return Err(ForeignError::TooBig { trust_domain, bytes });
        }
        Ok(())
    }
}

impl ForeignBundles {
    pub fn new(epoch: u64, mut bundles: Vec<ForeignBundle>) -> Result<Self, ForeignError> {
        if bundles.len() > MAX_FOREIGN {
            return Err(ForeignError::TooMany { count: bundles.len() });
        }
        bundles.sort_by(|a, b| a.trust_domain().cmp(b.trust_domain()));
        for pair in bundles.windows(2) {
            if pair[0].trust_domain() == pair[1].trust_domain() {
                return Err(ForeignError::Twice(pair[0].trust_domain().clone()));
            }
        }
        for foreign in &bundles {
            ForeignBundle::check_size(&foreign.bundle)?;
        }
        Ok(Self { epoch, bundles })
    }

    /// Grows with each change, never back; 0 before anything was said.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// In the order of their names.
    pub fn bundles(&self) -> &[ForeignBundle] {
        &self.bundles
    }

    /// Those of the named domains, at the same epoch.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&TrustDomain) -> bool) -> Self {
        let kept = self.bundles.iter().filter(|foreign| keep(foreign.trust_domain()));
        Self { epoch: self.epoch, bundles: kept.cloned().collect() }
    }
}

impl TrustBundles {
    /// A foreign bundle in the name of our own domain is left out: nobody else speaks for us.
    pub fn new(own: Arc<TrustBundle>, foreign: Arc<ForeignBundles>) -> Self {
        let is_ours = |other: &ForeignBundle| other.trust_domain() == own.trust_domain();
        let foreign = if foreign.bundles.iter().any(is_ours) {
            Arc::new(foreign.only(|domain| domain != own.trust_domain()))
        } else {
            foreign
        };
        Self { own, foreign }
    }

    pub fn own(&self) -> &Arc<TrustBundle> {
        &self.own
    }

    pub fn foreign(&self) -> &Arc<ForeignBundles> {
        &self.foreign
    }

    pub fn view(&self) -> Trust<'_> {
        Trust { own: &self.own, foreign: &self.foreign.bundles }
    }
}

impl<'a> Trust<'a> {
    pub fn own(&self) -> &'a TrustBundle {
        self.own
    }

    /// The one bundle under which names of this domain are verified.
    pub fn of(&self, trust_domain: &TrustDomain) -> Option<&'a TrustBundle> {
        if trust_domain == self.own.trust_domain() {
            return Some(self.own);
        }
        self.find(trust_domain).map(|foreign| &*foreign.bundle)
    }

    /// Whether peers of this domain are excepted from showing a log's proof.
    pub fn is_unlogged(&self, trust_domain: &TrustDomain) -> bool {
        trust_domain != self.own.trust_domain()
            && self.find(trust_domain).is_some_and(|foreign| foreign.unlogged)
    }

    pub(crate) fn is_federated(&self) -> bool {
        !self.foreign.is_empty()
    }

    fn find(&self, trust_domain: &TrustDomain) -> Option<&'a ForeignBundle> {
        self.foreign.iter().find(|foreign| foreign.trust_domain() == trust_domain)
    }
}

impl<'a> From<&'a TrustBundle> for Trust<'a> {
    fn from(own: &'a TrustBundle) -> Self {
        Self { own, foreign: &[] }
    }
}

impl<'a> From<&'a Arc<TrustBundle>> for Trust<'a> {
    fn from(own: &'a Arc<TrustBundle>) -> Self {
        Self { own, foreign: &[] }
    }
}

impl<'a> From<&'a TrustBundles> for Trust<'a> {
    fn from(bundles: &'a TrustBundles) -> Self {
        bundles.view()
    }
}

impl From<&Arc<TrustBundle>> for TrustBundles {
    fn from(own: &Arc<TrustBundle>) -> Self {
        Self { own: Arc::clone(own), foreign: Arc::default() }
    }
}

impl From<&Self> for TrustBundles {
    fn from(bundles: &Self) -> Self {
        bundles.clone()
    }
}
