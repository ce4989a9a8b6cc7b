//! How the CA's doors speak TLS (the gRPC port, and the bundle endpoint for other domains): 1.3 only, ephemeral post-quantum key exchange first, its own
//! SVID, and callers that either have no certificate yet or a valid one.
//!
//! Never: resumes a session (a caller is verified at every connection), or accepts early data.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::verify::CallerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, ServerConfig, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::authority::OwnSvid;
use crate::clock::Clock;

/// The configuration of all handshakes from now on.
pub fn server_config(
    own: OwnSvid,
    bundle: Arc<TrustBundle>,
    clock: Clock,
) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(CallerVerifier::new(bundle)))
        .with_single_cert(own.chain, PrivateKeyDer::Pkcs8(own.key))?;
    Ok(without_resumption(config, b"h2"))
}

/// The bundle endpoint's: the same, but callers stay strangers.
pub fn endpoint_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clock: Clock,
) -> Result<ServerConfig, rustls::Error> {
    // What signs with the key wipes what it has read; these bytes are ours to wipe.
    let key = Zeroizing::new(key);
    let certified = CertifiedKey::new(chain, any_supported_type(&key)?);
    match certified.keys_match() {
        // A key that cannot tell its public half is tried in the first handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(error),
    }
    let config = ServerConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(without_resumption(config, b"http/1.1"))
}

fn provider() -> Arc<CryptoProvider> {
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    Arc::new(CryptoProvider { kx_groups, ..default_provider() })
}

fn without_resumption(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}
