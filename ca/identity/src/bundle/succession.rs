//! How one trust bundle follows another: steps of the root ladder, each signed by a root that the
//! step before it trusted. Whoever knows any earlier bundle, or only its hash, finds the way to the
//! present one. The CA makes them and checks its store by them; a sidecar that slept through a
//! rotation, or is told of a new bundle, follows them.
//! Never: a clock, or a step that is believed for where it came from.

// SPDX-License-Identifier: Apache-2.0

use super::{BundleHash, RootId, TrustBundle};
use crate::id::TrustDomain;
use crate::log::named_log_extension;
use crate::x509::{CaFacts, sha256};

/// The steps of twenty rotations: whoever slept longer than that joins anew.
pub const MAX_STEPS: usize = 64;

/// Sets these bytes apart from certificates and from everything else that a root signs.
const SIGNED_LABEL: &[u8] = b"myelin trust step v1\0";

/// Where on the ladder a trust domain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// One root, no rotation under way.
    Settled,
    /// A second root is trusted and being distributed; the first one still issues.
    Prepared,
    /// The second root issues; the first one is still trusted.
    Activated,
}

/// What one step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustStep {
    /// 1 for the first; one more at each step.
    pub number: u64,
    /// Its generation grows when the roots change, and stays when only the active one does.
    pub bundle: TrustBundle,
    pub rung: Rung,
    /// The root under which intermediates are made.
    pub active: RootId,
    /// When the step was made, in Unix seconds.
    pub since: u64,
    /// The digest of the step before; zeros for the first.
    pub before: [u8; 32],
}

/// A step, and the root that vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStep {
    pub step: TrustStep,
    pub signer: RootId,
    /// ASN.1 ECDSA over [`TrustStep::signed_bytes`] with the hash of the root's curve.
    pub signature: Vec<u8>,
}

/// Why a step is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    #[error("the trust record is for another trust domain")]
    OtherTrustDomain,
    #[error("trust record {found} does not follow number {held}")]
    OutOfOrder { held: u64, found: u64 },
    #[error("trust record {number} does not continue the one before it")]
    OtherPast { number: u64 },
    #[error("trust record {number} is not signed by a root that was trusted before it")]
    UntrustedSigner { number: u64 },
    #[error("trust record {number}: the signature is not by that root over this record")]
    BadSignature { number: u64 },
    #[error(
        "trust record {number} goes from bundle generation {held} to {found}: it grows by its roots' \
         changes and by nothing else"
    )]
    Generation { number: u64, held: u64, found: u64 },
    #[error("trust record {number} takes back or changes the log that was stated for a root")]
    OtherLog { number: u64 },
    #[error("trust record {number} names an active root that is not in its bundle")]
    ActiveNotThere { number: u64 },
}

/// Why no way leads from what is known to the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    #[error("{count} trust records are more than {MAX_STEPS}")]
    TooMany { count: usize },
    #[error(
        "none of the CA's trust records holds the roots that are known here: the rotation is too \
         long ago, or this is another CA; join with a new token (`myelin-ca token create`)"
    )]
    Unknown,
    #[error(
        "the CA's trust records know the roots that are known here as generation {told} only, and \
         generation {held} is held: an older history, which may lead to roots that were given up"
    )]
    Older { told: u64, held: u64 },
    #[error(transparent)]
    Step(#[from] StepError),
}

impl TrustStep {
    /// The canonical bytes that get signed: every part of changing length has its length before it.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = SIGNED_LABEL.to_vec();
        put(&mut out, self.bundle.trust_domain().as_str().as_bytes());
        out.extend(self.number.to_be_bytes());
        out.extend(self.bundle.generation().to_be_bytes());
        out.push(match self.rung {
            Rung::Settled => 0,
            Rung::Prepared => 1,
            Rung::Activated => 2,
        });
        out.extend(self.since.to_be_bytes());
        out.extend(self.before);
        out.extend(self.active.as_bytes());
        out.extend((self.bundle.roots().len() as u64).to_be_bytes());
        for root in self.bundle.roots() {
            put(&mut out, root);
        }
        // Nothing follows where nothing is stated.
        for (root, log) in self.bundle.stated_logs() {
            out.extend(root.as_bytes());
            put(&mut out, &named_log_extension(log));
        }
        out
    }

    /// What the next step names as its past.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.signed_bytes())
    }
}

impl SignedStep {
    /// Believes this step because the one before it is believed.
    pub fn follows(&self, before: &TrustStep) -> Result<(), StepError> {
        let number = self.step.number;
        if self.step.bundle.trust_domain() != before.bundle.trust_domain() {
            return Err(StepError::OtherTrustDomain);
        }
        if Some(number) != before.number.checked_add(1) {
            return Err(StepError::OutOfOrder { held: before.number, found: number });
        }
        if self.step.before != before.digest() {
            return Err(StepError::OtherPast { number });
        }
        let (held, found) = (before.bundle.generation(), self.step.bundle.generation());
        let same = self.step.bundle.hash() == before.bundle.hash();
        if found < held || (found == held) != same {
            return Err(StepError::Generation { number, held, found });
        }
        let now = &self.step.bundle;
        let kept = |(root, log)| !now.holds_root(&root) || now.stated_log(&root) == Some(log);
        if !before.bundle.stated_logs().all(kept) {
            return Err(StepError::OtherLog { number });
        }
        self.signed_under(&before.bundle)
    }

    /// Whether a root of this bundle signed the step, and the step makes sense by itself.
    pub fn signed_under(&self, trusted: &TrustBundle) -> Result<(), StepError> {
        let number = self.step.number;
        if !self.step.bundle.holds_root(&self.step.active) {
            return Err(StepError::ActiveNotThere { number });
        }
        let root = trusted.root_der(&self.signer).ok_or(StepError::UntrustedSigner { number })?;
        let facts = CaFacts::read(root).map_err(|_| StepError::UntrustedSigner { number })?;
        facts
            .verify_statement(&self.step.signed_bytes(), &self.signature)
            .map_err(|_| StepError::BadSignature { number })
    }
}

/// Follows `steps`, oldest first, from the newest one whose roots have the hash `known` and whose
/// generation is `generation` or a later one (0 where none is known). Roots may come back, when a
/// rotation is gone back from: an earlier step with the same roots leads to those that were given up.
/// `None`: the known roots are the present ones. The generation of what is found is the last step's.
pub fn follow(
    steps: &[SignedStep],
    trust_domain: &TrustDomain,
    known: BundleHash,
    generation: u64,
) -> Result<Option<TrustBundle>, SuccessionError> {
    if steps.len() > MAX_STEPS {
        return Err(SuccessionError::TooMany { count: steps.len() });
    }
    let here = |bundle: &TrustBundle| bundle.hash() == known && bundle.generation() >= generation;
    let start = steps.iter().rposition(|signed| here(&signed.step.bundle));
    let Some(start) = start else {
        let older = steps.iter().rfind(|signed| signed.step.bundle.hash() == known);
        return Err(match older.map(|older| older.step.bundle.generation()) {
            Some(told) => SuccessionError::Older { told, held: generation },
            None => SuccessionError::Unknown,
        });
    };
    if steps[start].step.bundle.trust_domain() != trust_domain {
        return Err(StepError::OtherTrustDomain.into());
    }
    for pair in steps[start..].windows(2) {
        pair[1].follows(&pair[0].step)?;
    }
    let last = steps.last().expect("the start is one of them");
    Ok((start + 1 < steps.len()).then(|| last.step.bundle.clone()))
}

/// Whether `steps` lead from `held`, by its very generation, to the same roots with this later one: a
/// rotation was gone back from while nobody listened. A generation that nobody vouches for would make
/// all true ones older than itself.
pub fn came_back(steps: &[SignedStep], held: &TrustBundle, generation: u64) -> bool {
    let is = |step: &SignedStep, generation| {
        let bundle = &step.step.bundle;
        bundle.generation() == generation
            && bundle.hash() == held.hash()
            && bundle.trust_domain() == held.trust_domain()
    };
    let start = steps.iter().position(|step| is(step, held.generation()));
    let Some(way) = start.and_then(|start| steps.get(start..)) else { return false };
    steps.len() <= MAX_STEPS
        && way.windows(2).all(|pair| pair[1].follows(&pair[0].step).is_ok())
        && way.last().is_some_and(|last| is(last, generation))
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend((part.len() as u64).to_be_bytes());
    out.extend(part);
}
