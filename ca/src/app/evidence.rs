//! Opens what the attestors of outside evidence need: key sets and CA files, read once at start so
//! that a mistake is seen there.
//!
//! Never: goes on with an attestor that was asked for and cannot work.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;

use myelin_identity::id::TrustDomain;

use super::{AppError, cluster};
use crate::attest::Attestors;
use crate::attest::kubernetes::{HttpsSource, Jwks, KeysError, Kubernetes, Source};
use crate::attest::machine::Machines;
use crate::clock::Clock;
use crate::config::{AttestConfig, KeysConfig};
use crate::datadir::read_bounded;

/// A file of CA certificates: some dozens of them.
const MAX_CA_FILE_BYTES: u64 = 256 * 1024;

/// The attestors of this configuration.
pub(super) async fn attestors(
    config: &AttestConfig,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<Attestors, AppError> {
    let kubernetes = match &config.kubernetes {
        None => None,
        Some(kubernetes) => {
            let keys = Jwks::new(source(&kubernetes.keys, clock)?);
            match (keys.prime().await, &kubernetes.keys) {
                (Ok(count), _) => tracing::info!(count, "keys of the service-account issuer read"),
                // A server may come later than this CA; a file that is not there is a mistake.
                (Err(error), KeysConfig::Https { .. }) => {
                    tracing::warn!(%error, "the keys of the service-account issuer are not there yet");
                }
                (Err(error), KeysConfig::File(_)) => return Err(AppError::Keys(error)),
            }
            let attestor = Kubernetes::new(kubernetes.issuer.clone(), trust_domain, keys);
            Some(match &kubernetes.review {
                None => attestor,
                Some(way) => attestor.reviewed(cluster::client(way.kubeconfig.as_deref()).await?),
            })
        }
    };
    let machine = match &config.machine_ca {
        None => None,
        Some(path) => Some(Machines::new(path, &read(path)?)?),
    };
    Ok(Attestors { kubernetes, machine })
}

fn source(keys: &KeysConfig, clock: &Clock) -> Result<Source, AppError> {
    match keys {
        KeysConfig::File(path) => Ok(Source::File(path.clone())),
        KeysConfig::Https { url, ca, bearer_file } => {
            let roots = read(ca)?;
            let (ca, bearer) = (ca.clone(), bearer_file.clone());
            let source = HttpsSource::new(url, ca, &roots, bearer, clock);
            Ok(Source::Https(source.map_err(KeysError::from)?))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AppError> {
    read_bounded(path, MAX_CA_FILE_BYTES)
        .map_err(|cause| AppError::CaFile { path: path.to_owned(), cause })
}
