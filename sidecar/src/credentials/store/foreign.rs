//! The foreign half of a snapshot: of the bundles that the CA says, those of the domains that
//! configuration names. Part of the store; called by the watch, and by `app` at each reload.
//!
//! Never: a foreign bundle for a domain that the configuration does not name, a step back to an
//! older epoch; a domain without a log on the CA's word alone.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::Arc;

use myelin_identity::bundle::{ForeignBundle, ForeignBundles, TrustBundle, TrustBundles};
use myelin_identity::id::TrustDomain;

use super::{Rejected, Snapshot, Store, Writer};

impl Store {
    /// The foreign domains whose bundles may be used from now on, and those of them that need no
    /// log. What was said of them earlier counts at once, and so does the end of the others.
    pub fn federate_with(
        &self,
        domains: BTreeSet<TrustDomain>,
        unlogged: BTreeSet<TrustDomain>,
    ) -> Result<(), Rejected> {
        let mut writer = self.writer();
        (writer.federates_with, writer.federates_unlogged) = (domains, unlogged);
        self.refresh(&writer).map(|_| ())
    }

    /// Takes over what the CA says of foreign domains; `Ok(None)` if that changes nothing for us.
    /// The same epoch again must say the same.
    pub(in crate::credentials) fn publish_foreign(
        &self,
        said: ForeignBundles,
    ) -> Result<Option<Arc<Snapshot>>, Rejected> {
        let mut writer = self.writer();
        let (seen, held) = (said.epoch(), writer.foreign.epoch());
        if seen < held {
            return Err(Rejected::OlderForeign { seen, held });
        }
        // Epoch 0 is what we hold before the CA has said anything at all.
        if seen == held && held != 0 && said != *writer.foreign {
            return Err(Rejected::ContradictoryForeign { epoch: seen });
        }
        writer.foreign = Arc::new(said);
        self.refresh(&writer)
    }

    /// Swaps in a snapshot with the writer's view, if that differs from the one in use.
    fn refresh(&self, writer: &Writer) -> Result<Option<Arc<Snapshot>>, Rejected> {
        let Some(old) = self.load() else { return Ok(None) };
        let now = writer.trust(&old.bundle);
        if now.foreign().bundles() == old.trust.foreign().bundles() {
            return Ok(None);
        }
        let (bundle, deny) = (Arc::clone(&old.bundle), Arc::clone(&old.deny));
        self.swap_in(writer, old.mine(), bundle, deny).map(Some)
    }
}

impl Writer {
    pub(super) fn trust(&self, own: &Arc<TrustBundle>) -> TrustBundles {
        let wanted = self.foreign.only(|domain| self.federates_with.contains(domain));
        // What the CA says is not signed; whoever speaks for it must not take a duty away.
        let bundles = wanted.bundles().iter().map(|foreign| {
            let accepted = self.federates_unlogged.contains(foreign.trust_domain());
            ForeignBundle { unlogged: foreign.unlogged && accepted, ..foreign.clone() }
        });
        let wanted = ForeignBundles::new(wanted.epoch(), bundles.collect());
        let wanted = wanted.expect("a part of a set is a set");
        TrustBundles::new(Arc::clone(own), Arc::new(wanted))
    }
}
