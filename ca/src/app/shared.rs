//! Opens the store that was configured.
//!
//! Never: makes a file of etcd's operator, or reads a key of etcd's that others may read.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{AppError, cluster};
use crate::config::{EtcdFlags, StoreConfig};
use crate::datadir::DataDir;
use crate::store::Store;
use crate::store::embedded::Embedded;
use crate::store::etcd::{ClientTls, Etcd, EtcdConfig};
use crate::store::kubernetes::Kubernetes;

/// A chain and its CA are a few kilobytes.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// Bits of a file mode that let anybody else in.
const OTHERS: u32 = 0o077;

/// The store, ready to be asked.
pub(super) async fn open_store(
    config: &StoreConfig,
    data: &DataDir,
) -> Result<Arc<dyn Store>, AppError> {
    match config {
        StoreConfig::Embedded => Ok(Arc::new(Embedded::open(&data.store())?)),
        StoreConfig::Etcd(flags) => {
            let config = EtcdConfig {
                endpoints: flags.endpoints.clone(),
                tls: tls(flags)?,
                prefix: flags.prefix.clone(),
            };
            Ok(Arc::new(Etcd::open(&config).await?))
        }
        StoreConfig::Kubernetes(flags) => {
            let client = cluster::client(flags.kubeconfig.as_deref()).await?;
            Ok(Arc::new(Kubernetes::open(client, &flags.namespace, &flags.name).await?))
        }
    }
}

fn tls(flags: &EtcdFlags) -> Result<Option<ClientTls>, AppError> {
    let Some(ca) = &flags.ca else { return Ok(None) };
    let ca = pem("--etcd-ca", ca, false)?;
    let Some((certificate, key)) = &flags.own else {
        return Ok(Some(ClientTls::from_pem(&ca, None)?));
    };
    let (chain, key) = (pem("--etcd-cert", certificate, false)?, pem("--etcd-key", key, true)?);
    Ok(Some(ClientTls::from_pem(&ca, Some((&chain, &key)))?))
}

fn pem(flag: &'static str, path: &Path, secret: bool) -> Result<Vec<u8>, AppError> {
    let wrong = |cause| AppError::EtcdFile { flag, path: path.to_owned(), cause };
    let seen = fs::metadata(path).map_err(wrong)?;
    if seen.len() > MAX_PEM_BYTES {
        return Err(wrong(io::Error::other("it is larger than a PEM file of certificates is")));
    }
    if secret && seen.mode() & OTHERS != 0 {
        return Err(wrong(io::Error::other("others may read it; chmod 0600")));
    }
    fs::read(path).map_err(wrong)
}
