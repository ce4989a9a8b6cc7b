//! Why interception could not be set up, read or removed: who is to blame and what to do.
//! Raised by every file of this room, printed by `main`.
//!
//! Never: a message of more than one line; a panic in its place.

// SPDX-License-Identifier: Apache-2.0

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;

use super::plan::MAX_EXCLUSIONS;

/// What went wrong, in one line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterceptError {
    // The configuration is to blame.
    /// A text that is no address range.
    #[error(
        "excluded range `{0}` is neither an address nor a CIDR: write it like 10.1.0.0/16 or \
         fd00::/8"
    )]
    NoCidr(String),
    /// `10.1.2.3/8`: one address or the whole network?
    #[error(
        "excluded range `{given}` has bits set behind its prefix: write {network} for the \
         network, or {address} for the one address"
    )]
    HostBits {
        /// What was written.
        given: IpNet,
        /// The network that it lies in.
        network: IpNet,
        /// The one address.
        address: std::net::IpAddr,
    },
    /// `::ffff:10.0.0.0/104` never matches: such packets are IPv4 on the wire.
    #[error(
        "excluded range `{0}` is IPv4 written as IPv6 and would match no packet: write it as IPv4"
    )]
    MappedRange(IpNet),
    /// The exclusions cover an address family.
    #[error(
        "the excluded ranges cover all of {0}, which would switch interception off: name smaller \
         ranges, or use `intercept remove`"
    )]
    WholeFamily(&'static str),
    /// A text that is no mark.
    #[error("mark `{0}` is no 32-bit number: write it like 0x6d79, or 0 for none")]
    NoMark(String),
    /// Port 0 is no port.
    #[error("{0} is 0, expected a port from 1 to 65535")]
    ZeroPort(&'static str),
    /// Two listeners on one port.
    #[error("{first} and {second} are both port {port}: give each its own")]
    SamePort {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The port they share.
        port: u16,
    },
    /// One of the sidecar's own listeners is among the exclusions.
    #[error(
        "excluded inbound port {0} is the sidecar's own listener, which must stay captured to be \
         guarded against loops: leave it out"
    )]
    OwnPort(u16),
    /// The proxy UID is among the excluded UIDs.
    #[error(
        "excluded UID {0} is the proxy's own UID: its exemption is set by --proxy-uid together \
         with --mark, so leave it out"
    )]
    OwnUid(u32),
    /// UID 4294967295 means "none".
    #[error("{0} is 4294967295, which the kernel uses for `no user`: name a real UID")]
    NoUid(&'static str),
    /// Root would bypass the sidecar by its UID alone.
    #[error(
        "--proxy-uid 0 with --mark 0 would exempt everything that runs as root: run the sidecar \
         as its own UID, or set a mark"
    )]
    RootWithoutMark,
    /// Too many exclusions of one kind.
    #[error("{given} {kind}, at most {MAX_EXCLUSIONS}: replace them by fewer, wider ones")]
    TooMany {
        /// Which list.
        kind: &'static str,
        /// How many were given.
        given: usize,
    },

    // The host is to blame.
    /// EPERM, on reading as much as on writing.
    #[error(
        "{doing}: not permitted (EPERM): nf_tables needs CAP_NET_ADMIN in this network \
         namespace, for reading too; run as root or add the capability NET_ADMIN"
    )]
    NotPermitted {
        /// What was being done.
        doing: String,
    },
    /// The kernel has no nf_tables at all.
    #[error(
        "{doing}: this kernel has no nf_tables ({errno}): load the module nf_tables or use a \
         kernel with CONFIG_NF_TABLES_INET (5.2 or later); iptables-only kernels are not supported"
    )]
    NoNfTables {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// Some part of nf_tables is not there.
    #[error(
        "{doing}: this kernel lacks a part of nf_tables ({errno}): load the modules \
         nft_chain_nat, nft_redir and nft_ct, or use a kernel (5.2 or later) that has them built in, with \
         CONFIG_NF_CONNTRACK_ZONES (without it: a plan without a mark)"
    )]
    MissingPart {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// Any other refusal.
    #[error(
        "{doing}: the kernel refused ({errno}{detail}): nothing was changed; see `nft list \
         ruleset` for what else is there"
    )]
    Refused {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        errno: Errno,
        /// The kernel's own explanation, if it gave one, with a leading separator.
        detail: String,
    },
    /// The netlink socket itself failed.
    #[error(
        "{doing}: netlink socket failed ({source}): retry; if it persists, check the memory and \
         file limits of this process"
    )]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "the kernel did not answer within {0} s: run `intercept show` to see what is there, then \
         retry"
    )]
    TimedOut(i64),
    /// Somebody else keeps changing nf_tables.
    #[error(
        "nf_tables kept changing while it was read: another tool rewrites rules in this network \
         namespace; retry when it rests"
    )]
    Unsettled,

    // We are to blame (or the kernel speaks a dialect that we do not know).
    /// An answer that cannot be decoded.
    #[error(
        "cannot read the kernel's answer ({0}): please report this with the kernel version; `nft \
         list table inet myelin` shows the rules meanwhile"
    )]
    Unreadable(String),
}

impl InterceptError {
    /// Was it the kernel's "no such thing"?
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { errno: Errno::ENOENT, .. })
    }

    /// A netlink error code, told apart by who has to act. `writes` says whether something was to
    /// be created: only then does "no such thing" mean a missing part of the kernel. A question
    /// that the kernel finds invalid went to a subsystem that it does not have.
    pub(super) fn from_kernel(doing: &str, writes: bool, errno: Errno, detail: &str) -> Self {
        let doing = doing.to_owned();
        match errno {
            Errno::EPERM | Errno::EACCES => Self::NotPermitted { doing },
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EINVAL if !writes => {
                Self::NoNfTables { doing, errno }
            }
            Errno::EOPNOTSUPP | Errno::ENOENT if writes => Self::MissingPart { doing, errno },
            _ => {
                let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                Self::Refused { doing, errno, detail }
            }
        }
    }
}
