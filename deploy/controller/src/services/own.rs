//! The controller's own SVID, from the CA as any pod gets it: by its projected service-account token,
//! renewed by the sidecar's own room for that. Called by the room's door.
//!
//! Never: another identity than the configured one; an SVID's key outside of this process's memory (the
//! host key rests sealed in the state directory, as a sidecar's does).

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use myelin_identity::bundle::TrustBundle;
use myelin_sidecar::addr::{Clock, Endpoint};
use myelin_sidecar::controller::ALPN;
use myelin_sidecar::credentials::{self, Desk, Evidence, StartError, Store};
use myelin_sidecar::directory::Learned;
use myelin_sidecar::metrics::Metrics;
use myelin_sidecar::net::Dialer;

use super::{Config, LOOK_EVERY};
use crate::{bundle, ca_address};

/// To the CA, which is in the same cluster.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Own {
    pub(super) store: Arc<Store>,
    config: Config,
    ca: ca_address::Held,
    bundle: bundle::Held,
    clock: Clock,
}

impl Own {
    pub(super) fn new(
        config: Config,
        ca: ca_address::Held,
        bundle: bundle::Held,
        clock: Clock,
    ) -> Self {
        let store = Store::new(vec![ALPN.to_vec()], clock.clone(), None);
        Self { store, config, ca, bundle, clock }
    }

    /// Keeps the store fresh until dropped.
    pub(super) async fn keep(self) -> Result<(), StartError> {
        let (cas, pinned) = self.known().await;
        let config = credentials::Config {
            trust_domain: self.config.id.trust_domain().clone(),
            id: Some(self.config.id.clone()),
            cas,
            state_dir: self.config.state_dir.clone(),
            join_token: None,
            evidence: Evidence::KubernetesToken(self.config.token_file.clone()),
            pinned: Some(pinned),
            lifetime: None,
            dialer: Dialer::new(None, DIAL_WITHIN),
            workload: None,
        };
        // We ask the CA about nobody's address.
        let desk = Desk::new(Arc::new(ArcSwap::from_pointee(Learned::default())));
        let metrics = Arc::new(Metrics::new());
        let for_ever = std::future::pending();
        credentials::run(config, self.store, desk, metrics, self.clock, for_ever).await
    }

    /// Both come from elsewhere, and may come late.
    async fn known(&self) -> (Vec<Endpoint>, TrustBundle) {
        loop {
            let cas: Vec<Endpoint> = self.ca.load().iter().copied().map(Endpoint).collect();
            let pem = self.bundle.load_full();
            let domain = self.config.id.trust_domain();
            let read = |pem: &str| TrustBundle::from_pem(domain.clone(), 0, pem).ok();
            if let Some(bundle) = pem.as_deref().and_then(|pem| read(pem))
                && !cas.is_empty()
            {
                return (cas, bundle);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
