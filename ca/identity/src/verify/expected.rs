//! Whom the dialer meant: asked after the handshake, before one byte of the workload goes out.
//! Called by the sidecar's outbound side and by the CA's clients.
//! Never: patterns or prefixes; an empty set of IDs means nobody, not anybody.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use super::{Peer, Refusal};
use crate::id::SpiffeId;

/// The IDs that the dialled service or address is bound to, and, where an address was dialled
/// directly, that address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    pub ids: Vec<SpiffeId>,
    pub address: Option<IpAddr>,
}

impl Expected {
    pub fn check(&self, peer: &Peer) -> Result<(), Refusal> {
        if !self.ids.contains(&peer.id) {
            return Err(Refusal::WrongPeer { seen: peer.id.clone(), expected: self.ids.clone() });
        }
        match self.address.map(|address| address.to_canonical()) {
            Some(address) if !peer.ip_sans.contains(&address) => {
                Err(Refusal::WrongAddress { address, seen: peer.ip_sans.clone() })
            }
            _ => Ok(()),
        }
    }
}
