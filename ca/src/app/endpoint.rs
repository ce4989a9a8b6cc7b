//! As whom our bundle endpoint presents itself: the CA's own SVID, renewed with it, or a web
//! certificate from files, read again as somebody else renews them.
//!
//! Never: serves a key that every user of this machine may read, or drops a good certificate for a
//! damaged one.

// SPDX-License-Identifier: Apache-2.0

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;

use crate::api::tls;
use crate::authority::OwnSvid;
use crate::clock::Clock;
use crate::config::EndpointIdentity;

/// A chain with its key takes a few kilobytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// How often the files are looked at: renewals happen weeks ahead of an end.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("cannot use {} ({flag}): {why}", path.display())]
    File { flag: &'static str, path: PathBuf, why: String },
    #[error(
        "{} ({flag}) may be read by every user of this machine (mode {mode:04o}); run: chmod o-rwx {}",
        path.display(), path.display()
    )]
    Readable { flag: &'static str, path: PathBuf, mode: u32 },
    #[error("the certificate and key of the bundle endpoint do not go together: {0}")]
    Tls(#[from] rustls::Error),
}

/// The endpoint's TLS configuration through time.
pub(super) struct EndpointTls {
    pub(super) current: Arc<ArcSwap<ServerConfig>>,
    files: Option<Files>,
    clock: Clock,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    read: (Vec<u8>, Vec<u8>),
    looked: Instant,
}

impl EndpointTls {
    pub(super) fn open(
        identity: &EndpointIdentity,
        own: &OwnSvid,
        clock: Clock,
    ) -> Result<Self, EndpointError> {
        let (config, files) = match identity {
            EndpointIdentity::OwnSvid => (of_svid(own, &clock)?, None),
            EndpointIdentity::Web { certificate, key } => {
                let read = read_both(certificate, key)?;
                let config = of_files(certificate, key, &read, &clock)?;
                let (certificate, key) = (certificate.clone(), key.clone());
                (config, Some(Files { certificate, key, read, looked: Instant::now() }))
            }
        };
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(config)), files, clock })
    }

    /// The CA has a new SVID.
    pub(super) fn renewed(&self, own: &OwnSvid) -> Result<(), EndpointError> {
        if self.files.is_none() {
            self.current.store(Arc::new(of_svid(own, &self.clock)?));
        }
        Ok(())
    }

    /// Takes over files that have changed, if they are good; else says so and keeps what it has.
    pub(super) fn look(&mut self) {
        let Some(files) = self.files.as_mut().filter(|f| f.looked.elapsed() >= LOOK_EVERY) else {
            return;
        };
        files.looked = Instant::now();
        let renewed = read_both(&files.certificate, &files.key).and_then(|read| {
            if read == files.read {
                return Ok(None);
            }
            let config = of_files(&files.certificate, &files.key, &read, &self.clock)?;
            Ok(Some((read, config)))
        });
        match renewed {
            Ok(None) => {}
            Ok(Some((read, config))) => {
                files.read = read;
                self.current.store(Arc::new(config));
                tracing::info!("the bundle endpoint has a new web certificate");
            }
            Err(error) => tracing::error!(%error, "the bundle endpoint keeps its old certificate"),
        }
    }
}

fn of_svid(own: &OwnSvid, clock: &Clock) -> Result<ServerConfig, rustls::Error> {
    // Leaf and issuer: the roots behind them are for first contacts at the gRPC port.
    let chain = own.chain.iter().take(2).cloned().collect();
    tls::endpoint_config(chain, PrivateKeyDer::Pkcs8(own.key.clone_key()), clock.clone())
}

fn of_files(
    certificate: &Path,
    key: &Path,
    read: &(Vec<u8>, Vec<u8>),
    clock: &Clock,
) -> Result<ServerConfig, EndpointError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read.0).collect();
    let chain = chain.map_err(|why| wrong(CERTIFICATE_FLAG, certificate, &why.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(CERTIFICATE_FLAG, certificate, "it holds no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read.1)
        .map_err(|why| wrong(KEY_FLAG, key, &format!("it holds no private key in PEM ({why})")))?;
    Ok(tls::endpoint_config(chain, key, clock.clone())?)
}

const CERTIFICATE_FLAG: &str = "--federation-web-cert";
const KEY_FLAG: &str = "--federation-web-key";

fn read_both(certificate: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), EndpointError> {
    let mode =
        std::fs::metadata(key).map_err(|error| wrong(KEY_FLAG, key, &error.to_string()))?.mode();
    if mode & 0o007 != 0 {
        let (flag, mode) = (KEY_FLAG, mode & 0o7777);
        return Err(EndpointError::Readable { flag, path: key.to_owned(), mode });
    }
    Ok((bounded(CERTIFICATE_FLAG, certificate)?, bounded(KEY_FLAG, key)?))
}

fn bounded(flag: &'static str, path: &Path) -> Result<Vec<u8>, EndpointError> {
    let at = |error: std::io::Error| wrong(flag, path, &error.to_string());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(at)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(flag, path, "it is larger than 256 KiB"));
    }
    Ok(bytes)
}

fn wrong(flag: &'static str, path: &Path, why: &str) -> EndpointError {
    EndpointError::File { flag, path: path.to_owned(), why: why.to_owned() }
}
