//! Opens what it takes to ask witnesses: the roots by which their servers are recognised.
//!
//! Never: starts without roots that a server will need.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rustls::RootCertStore;

use super::AppError;
use crate::clock::Clock;
use crate::config::WitnessConfig;
use crate::datadir::read_bounded;
use crate::federation::system_roots;
use crate::https::{self, Recognised};
use crate::log::witness::Witnesses;

/// A file of CA certificates: as many as a system has.
const MAX_ROOTS_BYTES: u64 = 4 * 1024 * 1024;

/// The witnesses of this configuration; `None`: none are named.
pub(super) fn open(config: &WitnessConfig, clock: &Clock) -> Result<Option<Witnesses>, AppError> {
    if config.named.is_empty() {
        return Ok(None);
    }
    let roots = match &config.roots {
        Some(path) => {
            let pem = read_bounded(path, MAX_ROOTS_BYTES)
                .map_err(|cause| AppError::CaFile { path: path.clone(), cause })?;
            https::roots(&pem).map_err(|why| format!("--witness-roots {} {why}", path.display()))
        }
        None if config.named.iter().all(|witness| witness.url.is_here()) => {
            Ok(RootCertStore::empty())
        }
        None => system_roots(),
    };
    let roots = roots.map_err(AppError::WitnessRoots)?;
    let tls = Arc::new(https::client_config(Recognised::ByRoots(roots), clock)?);
    Ok(Some(Witnesses { named: config.named.clone(), quorum: config.quorum, tls }))
}
