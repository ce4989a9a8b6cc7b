//! As whom our bundle endpoint presents itself: the CA's own SVID, renewed with it, or a web
//! certificate from files, read again as somebody else renews them.
//!
//! Never: serves a key that every user of this machine may read, keeps the bytes of its file to
//! compare them, or drops a good certificate for a damaged one.

// SPDX-License-Identifier: Apache-2.0

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::api::tls;
use crate::authority::OwnSvid;
use crate::clock::Clock;
use crate::config::EndpointIdentity;
use crate::datadir::read_bounded;

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
    taken: Digests,
    looked: Instant,
}

/// SHA-256 of the certificate's file and of the key's: enough to see a change.
type Digests = [[u8; SHA256_OUTPUT_LEN]; 2];

/// What both files hold, for as long as it takes to use it.
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Contents {
    fn digests(&self) -> Digests {
        [&self.certificate[..], &self.key[..]]
            .map(|bytes| digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
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
                let (taken, looked) = (read.digests(), Instant::now());
                (config, Some(Files { certificate, key, taken, looked }))
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
            let digests = read.digests();
            if digests == files.taken {
                return Ok(None);
            }
            let config = of_files(&files.certificate, &files.key, &read, &self.clock)?;
            Ok(Some((digests, config)))
        });
        match renewed {
            Ok(None) => {}
            Ok(Some((taken, config))) => {
                files.taken = taken;
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
    read: &Contents,
    clock: &Clock,
) -> Result<ServerConfig, EndpointError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read.certificate).collect();
    let chain = chain.map_err(|why| wrong(CERTIFICATE_FLAG, certificate, &why.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(CERTIFICATE_FLAG, certificate, "it holds no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read.key)
        .map_err(|why| wrong(KEY_FLAG, key, &format!("it holds no private key in PEM ({why})")))?;
    Ok(tls::endpoint_config(chain, key, clock.clone())?)
}

const CERTIFICATE_FLAG: &str = "--federation-web-cert";
const KEY_FLAG: &str = "--federation-web-key";

fn read_both(certificate: &Path, key: &Path) -> Result<Contents, EndpointError> {
    let mode =
        std::fs::metadata(key).map_err(|error| wrong(KEY_FLAG, key, &error.to_string()))?.mode();
    if mode & 0o007 != 0 {
        let (flag, mode) = (KEY_FLAG, mode & 0o7777);
        return Err(EndpointError::Readable { flag, path: key.to_owned(), mode });
    }
    let read = |flag, path: &Path| {
        read_bounded(path, MAX_FILE_BYTES).map_err(|error| wrong(flag, path, &error.to_string()))
    };
    let certificate = read(CERTIFICATE_FLAG, certificate)?;
    Ok(Contents { certificate, key: Zeroizing::new(read(KEY_FLAG, key)?) })
}

fn wrong(flag: &'static str, path: &Path, why: &str) -> EndpointError {
    EndpointError::File { flag, path: path.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};
    use rustls_pki_types::UnixTime;

    use super::*;

    /// A pair whose files lie in `directory`.
    fn write(directory: &Path) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        let paths = [directory.join("web.crt"), directory.join("web.key")];
        std::fs::write(&paths[0], params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        std::fs::set_permissions(&paths[1], std::fs::Permissions::from_mode(0o600)).unwrap();
        paths
    }

    fn open([certificate, key]: [PathBuf; 2]) -> EndpointTls {
        let clock = Clock::new(UnixTime::now);
        let read = read_both(&certificate, &key).unwrap();
        let config = of_files(&certificate, &key, &read, &clock).unwrap();
        let (taken, looked) = (read.digests(), Instant::now());
        let files = Some(Files { certificate, key, taken, looked });
        EndpointTls { current: Arc::new(ArcSwap::from_pointee(config)), files, clock }
    }

    #[tokio::test(start_paused = true)]
    async fn renewed_files_are_taken_over_and_damaged_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut endpoint = open(write(directory.path()));
        let current = endpoint.current.clone();
        let mut changed = async || {
            let before = current.load_full();
            tokio::time::advance(LOOK_EVERY).await;
            endpoint.look();
            !Arc::ptr_eq(&before, &current.load_full())
        };
        assert!(!changed().await, "the same files");
        let [certificate, key] = write(directory.path());
        assert!(changed().await);
        std::fs::write(&certificate, "-----BEGIN").unwrap();
        assert!(!changed().await, "damaged");
        write(directory.path());
        std::fs::write(&key, vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
        assert!(!changed().await, "too long");
        write(directory.path());
        assert!(changed().await);
    }
}
