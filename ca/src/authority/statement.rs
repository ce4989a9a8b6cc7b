//! What the CA says to every watcher: the bundle and the signed deny list, freshly dated. Signed
//! once for all.
//!
//! Never: signs for one watcher, so that a thousand watchers cost what one costs.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use myelin_identity::bundle::{DenyList, ForeignBundles, SignedDenyList, TrustBundle};
use tokio::sync::watch;

use super::{Authority, AuthorityError, DeniedError, IssueError};

/// How often the CA says the same again: with a staleness of twice this, a watcher knows that it
/// hears nothing.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// One saying. A later one replaces it.
#[derive(Clone, Debug)]
pub struct Statement {
    pub bundle: Arc<TrustBundle>,
    pub denied: SignedDenyList,
    pub foreign: Arc<ForeignBundles>,
}

impl Authority {
    /// Says it anew: called at each change and at each heartbeat. It is dated by when the store last
    /// confirmed it: a replica that cannot reach the store does not make old news look fresh.
    pub async fn say(&self) -> Result<(), AuthorityError> {
        let bundle = self.rotation.bundle();
        let said_at = self.confirmed.load(Ordering::Acquire);
        let current = self.deny_list();
        let list = DenyList::new(current.epoch(), said_at, current.entries())
            .map_err(DeniedError::from)?;
        let signer = self.rotation.signer();
        let signature = signer
            .sign_statement(&list.signed_bytes(bundle.trust_domain()))
            .map_err(IssueError::from)?;
        let denied = SignedDenyList { list, signature, signer: signer.certificate().clone() };
        let foreign = self.foreign.load_full();
        self.statements.send_replace(Some(Arc::new(Statement { bundle, denied, foreign })));
        Ok(())
    }

    /// Tells everybody of other foreign bundles from now on.
    pub async fn federate(&self, foreign: Arc<ForeignBundles>) -> Result<(), AuthorityError> {
        self.foreign.store(foreign);
        self.say().await
    }

    /// The latest saying, and all later ones.
    pub fn statements(&self) -> watch::Receiver<Option<Arc<Statement>>> {
        self.statements.subscribe()
    }
}
