//! The verifier as rustls wants it: both traits, one set of rules, TLS 1.3 only.
//! Called by the TLS rooms of sidecar and CA; a new bundle means a new verifier (and new session
//! storage: rustls asks nobody when a session is resumed).
//! Never: server names (identity is the SPIFFE ID, asked with `Expected`), hints, TLS 1.2.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::handshake::only_tls13_signatures;
use super::{Role, leaf_and_issuers};
use crate::bundle::TrustBundle;

/// Verifies mesh peers, in both directions: as a server's client and as a client's server. A client
/// without a certificate is refused.
#[derive(Debug)]
pub struct PeerVerifier {
    bundle: Arc<TrustBundle>,
}

/// For the CA's port only: a caller without a certificate may come in (it has none yet) and is then
/// nobody; one that presents a certificate is verified like any peer.
#[derive(Debug)]
pub struct CallerVerifier(PeerVerifier);

impl PeerVerifier {
    pub fn new(bundle: Arc<TrustBundle>) -> Self {
        Self { bundle }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<(), rustls::Error> {
        leaf_and_issuers(leaf, issuers, &self.bundle, now, role)?;
        Ok(())
    }
}

impl CallerVerifier {
    pub fn new(bundle: Arc<TrustBundle>) -> Self {
        Self(PeerVerifier::new(bundle))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now, Role::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    only_tls13_signatures!();
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now, Role::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    only_tls13_signatures!();
}

impl ClientCertVerifier for CallerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    only_tls13_signatures!();
}
