//! The plan: which connections are captured and which are not, validated once. Built from this
//! room's [`Config`] by `run` and by `app`; `ruleset` turns it into rules.
//!
//! Never: I/O; an exclusion that was not named, except `fe80::/10`, the ops port and a probe port
//! that the sidecar itself serves.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv6Net};

use super::{InterceptError, defaults};

/// At most this many exclusions of one kind. Twice 256 set elements of one family stay under the
/// 64 KiB that one netlink attribute can hold, and nobody can review a longer list of bypasses.
pub const MAX_EXCLUSIONS: usize = 256;

/// Never mesh by design, and not dialable after a redirect: the zone is lost.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// What the operator says, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The UID that the sidecar runs as.
    pub proxy_uid: u32,
    /// The mark that the sidecar sets on its sockets; 0: its UID alone exempts it.
    pub mark: u32,
    /// Port of the outbound listener.
    pub outbound_port: u16,
    /// Port of the inbound listener.
    pub inbound_port: u16,
    /// Port of `/live`, `/ready` and `/metrics`.
    pub ops_port: u16,
    /// Port of the workload's probes, where the sidecar serves any. `None`: whoever listens there is
    /// a workload like any other, and captured.
    pub probe_port: Option<u16>,
    /// Destination ports that the workload reaches directly.
    pub exclude_outbound_ports: Vec<u16>,
    /// Ports of this pod that are reached directly.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destinations that the workload reaches directly.
    pub exclude_cidrs: Vec<IpNet>,
    /// Users whose outbound connections are not captured.
    pub exclude_uids: Vec<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            proxy_uid: defaults::PROXY_UID,
            mark: defaults::MARK,
            outbound_port: defaults::OUTBOUND_PORT,
            inbound_port: defaults::INBOUND_PORT,
            ops_port: defaults::OPS_PORT,
            probe_port: None,
            exclude_outbound_ports: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            exclude_cidrs: Vec::new(),
            exclude_uids: Vec::new(),
        }
    }
}

/// What shall be captured: checked, sorted, without overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) proxy_uid: u32,
    pub(super) mark: Option<NonZeroU32>,
    pub(super) outbound_port: u16,
    pub(super) inbound_port: u16,
    pub(super) outbound_direct_ports: BTreeSet<u16>,
    pub(super) inbound_direct_ports: BTreeSet<u16>,
    pub(super) direct_v4: Vec<Range>,
    pub(super) direct_v6: Vec<Range>,
    pub(super) direct_uids: BTreeSet<u32>,
}

/// First and last of a run of keys (addresses, ports, UIDs) as numbers; both belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl Plan {
    /// Checks a configuration.
    ///
    /// # Errors
    /// The first thing in it that cannot be meant, with what to write instead.
    pub fn new(config: Config) -> Result<Self, InterceptError> {
        check_ports(&config)?;
        check_users(&config)?;
        check_counts(&config)?;
        for range in &config.exclude_cidrs {
            check_cidr(range)?;
        }
        let (v4, v6): (Vec<_>, Vec<_>) = config
            .exclude_cidrs
            .iter()
            .copied()
            .chain([LINK_LOCAL.into()])
            .partition(|range| matches!(range, IpNet::V4(_)));
        let (direct_v4, direct_v6) = (merge(&v4), merge(&v6));
        refuse_everything(&direct_v4, u32::MAX.into(), "IPv4")?;
        refuse_everything(&direct_v6, u128::MAX, "IPv6")?;
        let own = [config.ops_port].into_iter().chain(config.probe_port);
        let inbound = config.exclude_inbound_ports.into_iter().chain(own);
        Ok(Self {
            proxy_uid: config.proxy_uid,
            mark: NonZeroU32::new(config.mark),
            outbound_port: config.outbound_port,
            inbound_port: config.inbound_port,
            outbound_direct_ports: config.exclude_outbound_ports.into_iter().collect(),
            inbound_direct_ports: inbound.collect(),
            direct_v4,
            direct_v6,
            direct_uids: config.exclude_uids.into_iter().collect(),
        })
    }
}

/// Reads `10.0.0.0/8`, `fd00::/8` or a single address.
///
/// # Errors
/// When it is neither, or when bits are set behind the prefix.
pub fn parse_cidr(text: &str) -> Result<IpNet, InterceptError> {
    let range = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| InterceptError::NoCidr(text.to_owned()))?,
    };
    check_cidr(&range)?;
    Ok(range)
}

fn check_cidr(range: &IpNet) -> Result<(), InterceptError> {
    if range.addr() != range.network() {
        return Err(InterceptError::HostBits {
            given: *range,
            network: range.trunc(),
            address: range.addr(),
        });
    }
    match range {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() && v6.prefix_len() >= 96 => {
            Err(InterceptError::MappedRange(*range))
        }
        _ => Ok(()),
    }
}

fn check_ports(config: &Config) -> Result<(), InterceptError> {
    let own: Vec<_> = [
        ("the outbound port", config.outbound_port),
        ("the inbound port", config.inbound_port),
        ("the ops port", config.ops_port),
    ]
    .into_iter()
    .chain(config.probe_port.map(|port| ("the probe port", port)))
    .collect();
    for (i, &(first, port)) in own.iter().enumerate() {
        if port == 0 {
            return Err(InterceptError::ZeroPort(first));
        }
        if let Some(&(second, _)) = own[i + 1..].iter().find(|(_, other)| *other == port) {
            return Err(InterceptError::SamePort { first, second, port });
        }
    }
    if config.exclude_outbound_ports.contains(&0) {
        return Err(InterceptError::ZeroPort("an excluded outbound port"));
    }
    if config.exclude_inbound_ports.contains(&0) {
        return Err(InterceptError::ZeroPort("an excluded inbound port"));
    }
    let listeners = [config.outbound_port, config.inbound_port];
    match config.exclude_inbound_ports.iter().find(|port| listeners.contains(port)) {
        Some(&port) => Err(InterceptError::OwnPort(port)),
        None => Ok(()),
    }
}

fn check_users(config: &Config) -> Result<(), InterceptError> {
    if config.proxy_uid == u32::MAX {
        return Err(InterceptError::NoUid("the proxy UID"));
    }
    if config.exclude_uids.contains(&u32::MAX) {
        return Err(InterceptError::NoUid("an excluded UID"));
    }
    if config.exclude_uids.contains(&config.proxy_uid) {
        return Err(InterceptError::OwnUid(config.proxy_uid));
    }
    if config.proxy_uid == 0 && config.mark == 0 {
        return Err(InterceptError::RootWithoutMark);
    }
    Ok(())
}

fn check_counts(config: &Config) -> Result<(), InterceptError> {
    let lists = [
        ("excluded outbound ports", config.exclude_outbound_ports.len()),
        ("excluded inbound ports", config.exclude_inbound_ports.len()),
        ("excluded ranges", config.exclude_cidrs.len()),
        ("excluded UIDs", config.exclude_uids.len()),
    ];
    match lists.into_iter().find(|(_, given)| *given > MAX_EXCLUSIONS) {
        Some((kind, given)) => Err(InterceptError::TooMany { kind, given }),
        None => Ok(()),
    }
}

/// Sorted ranges that neither overlap nor touch: the kernel refuses overlapping intervals.
fn merge(ranges: &[IpNet]) -> Vec<Range> {
    let mut sorted: Vec<Range> = ranges.iter().map(bounds).collect();
    sorted.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn bounds(range: &IpNet) -> Range {
    match range {
        IpNet::V4(v4) => {
            Range { first: u32::from(v4.network()).into(), last: u32::from(v4.broadcast()).into() }
        }
        IpNet::V6(v6) => Range { first: v6.network().into(), last: v6.broadcast().into() },
    }
}

fn refuse_everything(
    ranges: &[Range],
    highest: u128,
    family: &'static str,
) -> Result<(), InterceptError> {
    match ranges {
        [only] if only.first == 0 && only.last == highest => {
            Err(InterceptError::WholeFamily(family))
        }
        _ => Ok(()),
    }
}
