//! Room for all connections that the doors let in: the limit of open descriptors. Called by `run`.
//!
//! Never: asks for more than the operator has allowed (the hard limit).

// SPDX-License-Identifier: Apache-2.0

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::api::listen::MAX_CONNECTIONS;

/// Descriptors that are no sidecar's connection: the store, tiles, other doors, and a margin.
const OWN_DESCRIPTORS: u64 = 512;

/// Raises the soft limit to the hard one; says so if that is not enough.
pub(super) fn raise_limit() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let needed = MAX_CONNECTIONS as u64 + OWN_DESCRIPTORS;
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "few file descriptors: sidecars beyond them are not served; raise LimitNOFILE (systemd) or ulimit -n"
        );
    }
}
