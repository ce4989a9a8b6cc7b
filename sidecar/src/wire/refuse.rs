//! Why an acceptor refuses a use: a closed table of one-byte codes and stable words. Called by
//! the machines, by inbound (which chooses a reason) and outbound (which reports it).
//!
//! Never: free text from a peer, a code that changes its meaning, an error for a code that a
//! newer peer may know.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

/// The reason in a `refused` frame. The discriminant is the code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refuse {
    /// No reason that this build knows.
    Unspecified = 0,
    /// The policy of the port does not admit this peer.
    PolicyDenied = 1,
    /// The peer's SVID has expired since the handshake.
    IdentityExpired = 2,
    /// The peer's ID or serial is on the deny list.
    IdentityDenied = 3,
    /// The root that the peer's SVID chains to is no longer in the bundle.
    UntrustedRoot = 4,
    /// The peer does not come from an address that its SVID is bound to.
    AddressUnbound = 5,
    /// The peer's SVID is not in the log that this side insists on.
    NotLogged = 6,
    /// The acceptor itself has no valid SVID.
    IdentityUnavailable = 7,
    /// The captured destination is not the acceptor's to dial.
    BadDestination = 8,
    /// The workload does not listen, or did not answer in time.
    UpstreamUnreachable = 9,
    /// The acceptor is at one of its limits.
    Overloaded = 10,
    /// The acceptor is going away.
    Draining = 11,
}

impl Refuse {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 12] = [
        Self::Unspecified,
        Self::PolicyDenied,
        Self::IdentityExpired,
        Self::IdentityDenied,
        Self::UntrustedRoot,
        Self::AddressUnbound,
        Self::NotLogged,
        Self::IdentityUnavailable,
        Self::BadDestination,
        Self::UpstreamUnreachable,
        Self::Overloaded,
        Self::Draining,
    ];

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason for a code; a code that this build does not know is `Unspecified`.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Self::Unspecified)
    }

    /// The stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::PolicyDenied => "policy_denied",
            Self::IdentityExpired => "identity_expired",
            Self::IdentityDenied => "identity_denied",
            Self::UntrustedRoot => "untrusted_root",
            Self::AddressUnbound => "address_unbound",
            Self::NotLogged => "not_logged",
            Self::IdentityUnavailable => "identity_unavailable",
            Self::BadDestination => "bad_destination",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
