//! What belongs to this pod: its addresses and its descriptor limit. Called by `app` at start and
//! by `inbound` when it is asked to dial.
//!
//! Never: counts loopback or link-local addresses as the pod's; changes an interface.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::addr::is_link_local;

/// At most this many addresses are kept; a pod has a handful, a host with containers some tens.
const MAX_ADDRESSES: usize = 256;

/// The addresses at which peers reach this pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddresses {
    addresses: Vec<IpAddr>,
    /// They were found on interfaces, and not named by configuration.
    are_here: bool,
}

impl OwnAddresses {
    /// As configuration names them: peers come by them, and what is sent there may leave the pod.
    pub fn named(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, are_here: false }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address.to_canonical())
    }

    /// Whether what is sent to this address stays in this network namespace.
    pub fn is_here(&self, address: IpAddr) -> bool {
        self.are_here && self.contains(address)
    }

    pub fn as_slice(&self) -> &[IpAddr] {
        &self.addresses
    }
}

/// Every address on an interface that is neither loopback nor link-local.
pub fn own_addresses() -> io::Result<OwnAddresses> {
    let mut found = Vec::new();
    for interface in getifaddrs().map_err(io::Error::from)? {
        let Some(storage) = interface.address else { continue };
        let address = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        if !address.is_loopback() && !is_link_local(address) && !found.contains(&address) {
            found.push(address);
        }
        if found.len() == MAX_ADDRESSES {
            break;
        }
    }
    Ok(OwnAddresses { addresses: found, are_here: true })
}

/// Raises the soft limit of open descriptors to the hard one, and says what it is now.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(io::Error::from)?;
    }
    Ok(hard)
}
