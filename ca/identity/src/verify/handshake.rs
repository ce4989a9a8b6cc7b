//! The handshake's own signature, the same for every verifier of this room: TLS 1.3 alone, with the
//! algorithms of a path. Called by the verifiers through the macro, since rustls' two traits want
//! the same three methods from each of them.
//! Never: who the peer is; that is each verifier's own question.

// SPDX-License-Identifier: Apache-2.0

use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;

use super::path::CHAIN_ALGORITHMS;

/// The leaf's key is P-256 (checked as the chain is), so of these only the first is ever used by a
/// Myelin peer.
pub(super) static HANDSHAKE_ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: CHAIN_ALGORITHMS,
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[webpki::aws_lc_rs::ECDSA_P256_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[webpki::aws_lc_rs::ECDSA_P384_SHA384]),
    ],
};

/// What `ServerCertVerifier` and `ClientCertVerifier` ask about signatures, answered once.
macro_rules! only_tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &rustls_pki_types::CertificateDer<'_>,
            _dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err($crate::verify::Refusal::OldTls.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &rustls_pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &$crate::verify::handshake::HANDSHAKE_ALGORITHMS;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::verify::handshake::HANDSHAKE_ALGORITHMS.supported_schemes()
        }
    };
}

pub(super) use only_tls13_signatures;
