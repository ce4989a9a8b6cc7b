//! The verifier for another trust domain's bundle endpoint under the profile `https_spiffe`: the
//! server is exactly the one SPIFFE ID that the operator named, under the bundle that we hold of
//! its domain. Called by the CA's federation client.
//! Never: any other ID of that domain, a web certificate, trust on first use.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::handshake::only_tls13_signatures;
use super::{Refusal, Role, leaf_and_issuers};
use crate::bundle::TrustBundle;
use crate::id::SpiffeId;

/// Accepts one server of one trust domain.
#[derive(Debug)]
pub struct EndpointVerifier {
    bundle: Arc<TrustBundle>,
    id: SpiffeId,
}

impl EndpointVerifier {
    /// `bundle` is that of `id`'s trust domain, as it is held before the fetch.
    pub fn new(bundle: Arc<TrustBundle>, id: SpiffeId) -> Self {
        Self { bundle, id }
    }
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = leaf_and_issuers(end_entity, intermediates, &self.bundle, now, Role::Server)?;
        if peer.id != self.id {
            let expected = vec![self.id.clone()];
            return Err(Refusal::WrongPeer { seen: peer.id, expected }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    only_tls13_signatures!();
}
