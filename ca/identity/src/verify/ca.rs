//! The verifier for connections to the CA: exactly `spiffe://<trust domain>/myelin/ca`, nobody
//! else. Called by every client of the CA that already holds the bundle.
//! Never: any other valid mesh identity; a stolen workload SVID must not collect join tokens.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::handshake::only_tls13_signatures;
use super::{Peer, Refusal, Role, leaf_and_issuers};
use crate::bundle::{MAX_ROOTS, TrustBundle};
use crate::id::SpiffeId;
use crate::svid::MAX_CHAIN_CERTIFICATES;

/// Accepts the CA of one trust domain.
#[derive(Debug)]
pub struct CaVerifier {
    bundle: Arc<TrustBundle>,
}

impl CaVerifier {
    pub fn new(bundle: Arc<TrustBundle>) -> Self {
        Self { bundle }
    }
}

impl ServerCertVerifier for CaVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (issuers, _) = split(intermediates)?;
        ca(end_entity, issuers, &self.bundle, now)?;
        Ok(ServerCertVerified::assertion())
    }

    only_tls13_signatures!();
}

/// The rules for the CA's own certificate.
pub(super) fn ca(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: UnixTime,
) -> Result<Peer, Refusal> {
    let peer = leaf_and_issuers(leaf, issuers, bundle, now, Role::Server)?;
    let expected = SpiffeId::ca(bundle.trust_domain());
    if peer.id != expected {
        return Err(Refusal::WrongPeer { seen: peer.id, expected: vec![expected] });
    }
    Ok(peer)
}

/// The CA presents leaf, one intermediate, then the roots of its bundle for whoever comes the first
/// time: what issued the leaf, and the tail of roots.
pub(super) fn split<'c, 'd>(
    after_leaf: &'c [CertificateDer<'d>],
) -> Result<(&'c [CertificateDer<'d>], &'c [CertificateDer<'d>]), Refusal> {
    if after_leaf.len() >= MAX_CHAIN_CERTIFICATES + MAX_ROOTS {
        return Err(Refusal::ChainTooLong { count: after_leaf.len() + 1 });
    }
    Ok(after_leaf.split_at(after_leaf.len().min(1)))
}
