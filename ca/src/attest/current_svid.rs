//! Attestor: the current SVID, shown as the connection's client certificate. What is to be renewed
//! is the lineage that the request names; the journal knows whether this SVID is its head.
//!
//! Never: takes a serial that the handshake did not prove.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::Lineage;

use super::{AttestError, Caller, Claimed};
use crate::journal::Hex;

pub(super) fn claim(lineage: &Lineage, caller: &Caller) -> Result<Claimed, AttestError> {
    let (serial, generation) = (presented(caller)?, lineage.generation);
    Ok(Claimed::Renewal { lineage: id(lineage), generation, serial })
}

/// The same SVID, to vouch for the workload's own certificate.
pub(super) fn vouch(lineage: &Lineage, caller: &Caller) -> Result<Claimed, AttestError> {
    let (serial, generation) = (presented(caller)?, lineage.generation);
    Ok(Claimed::Companion { lineage: id(lineage), generation, serial })
}

fn id(lineage: &Lineage) -> Hex {
    Hex(lineage.id.as_bytes().to_vec())
}

/// The SVID that the connection proved.
fn presented(caller: &Caller) -> Result<Hex, AttestError> {
    let peer = caller.peer.as_ref().ok_or(AttestError::SvidNotPresented)?;
    Ok(Hex(peer.serial.as_bytes().to_vec()))
}
