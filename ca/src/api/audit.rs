//! The audit line of an issue or a refusal (target `audit`), and the reply's reason word: the same
//! word in both.
//!
//! Never: a token, a key or a payload.

// SPDX-License-Identifier: Apache-2.0

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

use crate::attest::Caller;
use crate::authority::{Blame, IssueError, Issued};

/// Reply metadata that carries the reason word for machines.
const REASON_KEY: &str = "myelin-reason";

/// One certificate that leaves.
pub(super) fn issued(caller: &Caller, attestor: &'static str, issued: &Issued) {
    tracing::info!(
        target: "audit",
        outcome = if issued.again { "repeated" } else { "issued" },
        id = %issued.spiffe_id,
        attestor,
        serial = %issued.serial,
        lineage = %issued.lineage,
        generation = issued.generation,
        addresses = ?issued.addresses,
        not_after = issued.not_after,
        remote = %caller.remote.0,
        "certificate issued"
    );
}

/// One request that gets none.
pub(super) fn refused(caller: &Caller, attestor: &'static str, error: &IssueError) {
    let (id, serial) = match &caller.peer {
        Some(peer) => (peer.id.to_string(), peer.serial.to_string()),
        None => (String::new(), String::new()),
    };
    let (outcome, remote) = (error.word(), caller.remote.0);
    tracing::warn!(
        target: "audit", outcome, id, attestor, serial, remote = %remote, reason = %error, "certificate refused"
    );
}

/// The reply of a refusal.
pub(super) fn status(error: &IssueError) -> Status {
    let code = match error.blame() {
        Blame::Request => Code::InvalidArgument,
        Blame::Caller => Code::PermissionDenied,
        Blame::Circumstances => Code::Unavailable,
        Blame::Ourselves => Code::Internal,
    };
    let mut status = Status::new(code, format!("{}: {error}", error.word()));
    name_reason(&mut status, error.word());
    status
}

pub(super) fn name_reason(status: &mut Status, word: &'static str) {
    let metadata: &mut MetadataMap = status.metadata_mut();
    metadata.insert(REASON_KEY, AsciiMetadataValue::from_static(word));
}
