//! Room for all connections that the directory lets in: the limit of open descriptors. Called by the
//! room's door.
//!
//! Never: asks for more than the operator has allowed (the hard limit).

// SPDX-License-Identifier: Apache-2.0

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::serve::{MAX_CONNECTIONS, MAX_HANDSHAKES};

/// Descriptors that are no sidecar's connection: the webhook's, the API server's, the CA's, and a margin.
const OWN_DESCRIPTORS: u64 = 1_024;

/// Raises the soft limit to the hard one; says so if that is not enough.
pub(super) fn raise_limit() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let needed = (MAX_CONNECTIONS + MAX_HANDSHAKES) as u64 + OWN_DESCRIPTORS;
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "few file descriptors: sidecars beyond them are told of no services; raise the container runtime's limit of open files"
        );
    }
}
