//! What a trust bundle demands of the chains that end in its roots, and whether another one would
//! demand less. Called by `judge`, by `credentials` before it takes over a bundle, and by `app`.
//!
//! Never: a configuration key; the roots' certificates say it, and where they name no log the bundle.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use myelin_identity::bundle::{ForeignBundle, RootId, TrustBundle};
use rustls::pki_types::CertificateDer;

/// What a trust bundle demands of the chains that end in its roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    pub roots: usize,
    /// Roots that name a log, or for which the bundle states one.
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
        let roots = bundle.root_ids();
        Self { roots: roots.len(), logged: roots.filter(|root| has_duty(bundle, root)).count() }
    }
}

/// Whether `new` has a root without a log that `held` does not have, although `held` has one that
/// names a log; or does not state the log that `held` states for a root of both. Whoever signed for
/// it, it may be somebody with a stolen key who wants certificates in no log to be taken.
pub fn takes_duty_back(held: &TrustBundle, new: &TrustBundle) -> bool {
    let exempts = |root| !has_duty(new, &root) && !held.holds_root(&root);
    let changed = |(root, log)| new.holds_root(&root) && new.stated_log(&root) != Some(log);
    held.stated_logs().any(changed)
        || held.root_ids().any(|root| has_duty(held, &root)) && new.root_ids().any(exempts)
}

/// Those of a foreign domain's roots that vouch for anybody here: they name a log, or it was
/// accepted that they do not.
pub fn accepted_roots(foreign: &ForeignBundle) -> impl Iterator<Item = &CertificateDer<'static>> {
    let ForeignBundle { bundle, unlogged } = foreign;
    let accepted = move |id: &RootId| *unlogged || has_duty(bundle, id);
    bundle
        .root_ids()
        .zip(bundle.roots())
        .filter_map(move |(id, root)| accepted(&id).then_some(root))
}

/// Whether what is below this root has to be logged: its certificate names a log, or the bundle
/// states one for it. A name of a log that cannot be read demands it all the same, and then nothing
/// satisfies it.
pub(super) fn has_duty(bundle: &TrustBundle, root: &RootId) -> bool {
    !matches!(bundle.log_of(root), Ok(None))
}
