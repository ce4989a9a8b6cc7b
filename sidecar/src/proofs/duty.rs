//! What a trust bundle demands of the chains that end in its roots, and whether another one would
//! demand less. Called by `judge`, by `credentials` before it takes over a bundle, and by `app`.
//!
//! Never: a configuration key or a word of the CA; the roots' certificates say it all.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use myelin_identity::bundle::{ForeignBundle, TrustBundle};
use myelin_identity::log::named_log;
use rustls::pki_types::CertificateDer;

/// What a trust bundle demands of the chains that end in its roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    pub roots: usize,
    /// Roots that name a log.
    pub logged: usize,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roots, logged } = self;
        match (logged, roots - logged) {
            (0, _) => f.write_str(
                "no root of this mesh names a log: certificates that were issued in secret are \
                 not found out",
            ),
            (_, 0) => f.write_str("peers must be in the log that their root names"),
            (logged, others) => write!(
                f,
                "{logged} roots name a log that peers must be in, and {others} do not yet"
            ),
        }
    }
}

impl Duty {
    pub fn of(bundle: &TrustBundle) -> Self {
        let roots = bundle.roots();
        Self { roots: roots.len(), logged: roots.filter(|root| has_duty(root)).count() }
    }
}

/// Whether `new` has a root without a log that `held` does not have, although `held` has one that
/// names a log: whoever signed for it, it may be somebody with a stolen key who wants certificates
/// in no log to be taken.
pub fn takes_duty_back(held: &TrustBundle, new: &TrustBundle) -> bool {
    let exempts = |(id, root)| !has_duty(root) && !held.holds_root(&id);
    held.roots().any(|root| has_duty(root)) && new.root_ids().zip(new.roots()).any(exempts)
}

/// Those of a foreign domain's roots that vouch for anybody here: they name a log, or it was
/// accepted that they do not.
pub fn accepted_roots(foreign: &ForeignBundle) -> impl Iterator<Item = &CertificateDer<'static>> {
    foreign.bundle.roots().filter(|root| foreign.unlogged || has_duty(root))
}

/// Whether what is below this root has to be logged. A name of a log that cannot be read demands
/// it all the same, and then nothing satisfies it.
pub(super) fn has_duty(root: &CertificateDer<'_>) -> bool {
    !matches!(named_log(root), Ok(None))
}
