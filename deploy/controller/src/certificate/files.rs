//! A certificate and its key in files that somebody else keeps right, as they keep `caBundle`. Called
//! by `app`.
//!
//! Never: gives up a good certificate for one that cannot be used.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Identity;
use super::tls::server_config;

/// Whoever renews the files does so days before they end.
const READ_EVERY: Duration = Duration::from_secs(10);

/// A chain of a few certificates, or a key.
const MAX_FILE_BYTES: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("the webhook's certificate {path} cannot be used: {why}")]
    Certificate { path: PathBuf, why: String },
    #[error("the webhook's key {path} cannot be used: {why}")]
    Key { path: PathBuf, why: String },
    #[error("the webhook's certificate and key do not fit: {0}")]
    Unfit(#[from] rustls::Error),
}

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

    pub(super) fn read(&self, held: &mut Option<(Vec<u8>, Vec<u8>)>) -> Result<(), FilesError> {
        let bad_certificate =
            |why: String| FilesError::Certificate { path: self.certificate.clone(), why };
        let bad_key = |why: String| FilesError::Key { path: self.key.clone(), why };
        let chain = bytes(&self.certificate).map_err(|why| bad_certificate(why.to_string()))?;
        let key = bytes(&self.key).map_err(|why| bad_key(why.to_string()))?;
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

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}
