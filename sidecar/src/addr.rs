//! Addresses with a meaning. A bare `SocketAddr` says nothing about whose it is, so every room
//! that hands one on names it by one of these types. Called by every room above.
//!
//! Never: resolves a name, opens a socket, reads a clock of its own.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// Where the workload (outbound) or the peer (inbound) meant to go, read once at accept.
/// IPv4-mapped IPv6 addresses are held as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrigDst(pub SocketAddr);

/// Where we dial: a workload of this pod, or a peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub SocketAddr);

/// Who dialled us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// Where one of our own listeners waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddr(pub SocketAddr);

macro_rules! shown_as_address {
    ($($name:ident),*) => {$(
        impl $name {
            /// The same address with an IPv4-mapped IPv6 address turned into IPv4.
            pub fn canonical(address: SocketAddr) -> Self {
                Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }

            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

shown_as_address!(OrigDst, Endpoint, PeerAddr, ListenAddr);

/// The wall clock in seconds since the Unix epoch, handed in by `app` so that every other room
/// can be tested at any time it likes.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    pub fn new(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Seconds since the Unix epoch.
    pub fn unix(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A set of address ranges. Small (tens of ranges), so it is searched from end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet(Vec<IpNet>);

impl CidrSet {
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self(IpNet::aggregate(&ranges))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ranges(&self) -> &[IpNet] {
        &self.0
    }
}

/// Link-local addresses are never mesh: metadata services and neighbour discovery live there.
pub fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_held_as_ipv4() {
        let mapped = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(OrigDst::canonical(mapped).to_string(), "10.1.2.3:80");
    }

    #[test]
    fn a_range_holds_its_own_and_nothing_else() {
        let set = CidrSet::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (address, inside) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("fd77::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn link_local_is_recognised_in_both_families() {
        for (address, expected) in
            [("169.254.169.254", true), ("fe80::1", true), ("10.0.0.1", false), ("fd00::1", false)]
        {
            assert_eq!(is_link_local(address.parse().unwrap()), expected, "{address}");
        }
    }
}
