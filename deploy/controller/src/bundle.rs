//! The trust bundle that injected sidecars begin with, read from its file and read anew when that
//! changes. Called by `app`; `webhook` loads what is held.
//!
//! Never: gives up a good bundle for one that cannot be read, or hands out roots of another trust
//! domain's making without saying which file they came from.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use myelin_identity::bundle::{BundleError, TrustBundle};
use myelin_identity::id::TrustDomain;

use crate::metrics::Metrics;

/// The kubelet writes a changed ConfigMap into its mount within a minute; this adds little.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Sixteen roots, the most that a bundle holds, take less than 1 KiB each.
const MAX_FILE_BYTES: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("the trust bundle {path} cannot be read: {source}; is its ConfigMap there?")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the trust bundle {path} has more than {MAX_FILE_BYTES} bytes; is it the right file?")]
    TooLarge { path: PathBuf },
    #[error("the trust bundle {path} cannot be used: {why}; write the CA's /bundle.pem there")]
    Unusable { path: PathBuf, why: BundleError },
}

/// The last good one, in PEM.
pub type Held = Arc<ArcSwapOption<String>>;

/// The file, and whose roots it must hold.
pub struct Source {
    pub path: PathBuf,
    pub trust_domain: TrustDomain,
    pub held: Held,
    pub metrics: Arc<Metrics>,
}

impl Source {
    /// Reads at once and every few seconds after it. Until dropped.
    pub async fn follow(&self) -> std::convert::Infallible {
        let mut said = None;
        loop {
            let now = self.refresh().err().map(|error| error.to_string());
            // Said once, not every few seconds.
            if now != said {
                match &now {
                    Some(why) => tracing::error!("{why}"),
                    None => tracing::info!(path = %self.path.display(), "trust bundle read"),
                }
                said = now;
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    fn refresh(&self) -> Result<(), FileError> {
        let read = read(&self.path, &self.trust_domain);
        self.metrics.bundle_read(if read.is_ok() { "read" } else { "failed" });
        let bundle = read?;
        let pem = bundle.to_pem();
        let held = self.held.load();
        if held.as_deref() != Some(&pem) {
            let (roots, hash) = (bundle.roots().len(), bundle.hash());
            tracing::info!(roots, %hash, "pods are injected with this trust bundle from now on");
            self.metrics.bundle_roots(roots);
            self.held.store(Some(Arc::new(pem)));
        }
        Ok(())
    }
}

/// The bundle of one file, if it is this trust domain's.
pub fn read(path: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    // The bound holds whatever the file says of its length: a pipe says nothing.
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    TrustBundle::from_pem(trust_domain.clone(), 0, &text)
        .map_err(|why| FileError::Unusable { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_not_read_to_it() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let refused = |path: &Path| read(path, &domain).unwrap_err().to_string();
        // It says that it has no bytes.
        let endless = refused(Path::new("/dev/zero"));
        assert!(endless.contains("more than 65536 bytes"), "{endless}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.pem");
        std::fs::write(&path, "x".repeat(65_537)).unwrap();
        assert!(refused(&path).contains("more than 65536 bytes"));
        std::fs::write(&path, "x".repeat(65_536)).unwrap();
        assert!(refused(&path).contains("cannot be used"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(refused(&path).contains("cannot be read"));
    }
}
