//! The verifier for the one question whose answer proves itself: how did the CA's trust bundle come
//! to be (`bundle::follow`). A sidecar that slept through a root rotation cannot recognise the CA
//! before it knows. Called by the sidecar's CA client for that question alone.
//! Never: for a connection on which a token, a certificate or a request is sent.

// SPDX-License-Identifier: Apache-2.0

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::handshake::only_tls13_signatures;

/// Lets anybody answer.
#[derive(Debug)]
pub struct Stranger;

impl ServerCertVerifier for Stranger {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    only_tls13_signatures!();
}
