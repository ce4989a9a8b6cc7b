//! The verifier for the very first connection to the CA, when only the bundle's hash is known (from
//! a join token): the roots that the CA presents are believed if and only if they have that hash.
//! Called by the sidecar once; afterwards it holds the bundle and uses `CaVerifier`.
//! Never: trust on first use.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Refusal;
use super::ca::{ca, split};
use super::handshake::only_tls13_signatures;
use crate::bundle::{BundleHash, RootId, TrustBundle};
use crate::id::TrustDomain;
use crate::log::issuer_log;
use crate::svid::Leaf;

/// For one connection: make a new one for the next.
#[derive(Debug)]
pub struct FirstContact {
    expected: BundleHash,
    trust_domain: Option<TrustDomain>,
    learned: OnceLock<Arc<TrustBundle>>,
}

impl FirstContact {
    /// `trust_domain`, where it is configured, must be the CA's; otherwise it is learned with the
    /// bundle.
    pub fn new(expected: BundleHash, trust_domain: Option<TrustDomain>) -> Self {
        Self { expected, trust_domain, learned: OnceLock::new() }
    }

    /// The bundle (generation 0: the CA tells the real one in its answer). Believe it only once the
    /// handshake has ended well, for only then has the CA proved its key.
    pub fn learned(&self) -> Option<Arc<TrustBundle>> {
        self.learned.get().cloned()
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        after_leaf: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let (issuers, roots) = split(after_leaf)?;
        let seen = BundleHash::of_roots(roots.iter().map(|root| RootId::of(root)));
        // Below roots that name no log the intermediate says which one counts; the hash covers it.
        let stated = issuers.first().and_then(|issuer| issuer_log(issuer).ok().flatten());
        if seen != self.expected && stated.is_none() {
            return Err(Refusal::WrongBundle { seen, expected: self.expected });
        }
        let trust_domain = match &self.trust_domain {
            Some(configured) => configured.clone(),
            None => Leaf::read(leaf).map_err(super::of_leaf)?.id.trust_domain().clone(),
        };
        let roots = roots.iter().map(|root| root.clone().into_owned()).collect();
        let bundle = TrustBundle::new(trust_domain, 0, roots)
            .map_err(|error| Refusal::ChainMalformed { why: error.to_string() })?;
        let bundle = match stated {
            Some(log) if seen != self.expected => bundle.stating(&log),
            _ => bundle,
        };
        let seen = bundle.hash();
        if seen != self.expected {
            return Err(Refusal::WrongBundle { seen, expected: self.expected });
        }
        ca(leaf, issuers, &bundle, now)?;
        // A second handshake with the same verifier can only have learned the same roots.
        let _ = self.learned.set(Arc::new(bundle));
        Ok(())
    }
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    only_tls13_signatures!();
}
