//! The webhook's own certificate as a rustls configuration: TLS 1.3, no client certificate (the API
//! server has none by default; what is answered here is no secret). Called by `app`.
//!
//! Never: an identity of the mesh's; a version below TLS 1.3.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Identity;

/// Whoever renews the files does so days before they end.
const READ_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the webhook's certificate {path} cannot be used: {why}")]
    Certificate { path: PathBuf, why: String },
    #[error("the webhook's key {path} cannot be used: {why}")]
    Key { path: PathBuf, why: String },
    #[error("the webhook's certificate and key do not fit: {0}")]
    Unfit(rustls::Error),
}

/// From PEM: the chain, and its key.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Files that somebody else keeps right.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub identity: Identity,
}

impl Files {
    /// Reads at once and every few seconds after it. Until dropped.
    pub async fn follow(&self) -> Infallible {
        let (mut held, mut said) = (None, None);
        loop {
            let read = self.read(&mut held).err().map(|why| why.to_string());
            if read != said {
                if let Some(why) = &read {
                    tracing::error!("{why}");
                }
                said = read;
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    pub(super) fn read(&self, held: &mut Option<(Vec<u8>, Vec<u8>)>) -> Result<(), TlsError> {
        let bad_certificate =
            |why: String| TlsError::Certificate { path: self.certificate.clone(), why };
        let bad_key = |why: String| TlsError::Key { path: self.key.clone(), why };
        let chain = std::fs::read(&self.certificate);
        let chain = chain.map_err(|why| bad_certificate(why.to_string()))?;
        let key = std::fs::read(&self.key).map_err(|why| bad_key(why.to_string()))?;
        if held.as_ref().is_some_and(|held| *held == (chain.clone(), key.clone())) {
            return Ok(());
        }
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|why| bad_certificate(why.to_string()))?;
        let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|why| bad_key(why.to_string()))?;
        let config = server_config(certificates, parsed)?;
        self.identity.store(Some(Arc::new(config)));
        tracing::info!(path = %self.certificate.display(), "serving with this certificate");
        *held = Some((chain, key));
        Ok(())
    }
}
