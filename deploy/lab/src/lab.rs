//! The topology: one namespace that holds a bridge ("the wire"), and pods plugged into it.
//! Called by the demo and by every namespace suite.
//! Never: connects a pod to the host's network, and never names anything on the host.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

use crate::ground;
use crate::link::{self, Tap};
use crate::netns::Netns;
use crate::pod::Pod;

/// A bridge takes 1,024 ports; a lab of one machine with two cores has no use for more than this.
const MAX_PODS: u32 = 200;

/// Pods and the wire between them. Dropping it and its pods removes everything.
#[derive(Debug)]
pub struct Lab {
    wire: Netns,
    bridge: u32,
    tap: Tap,
    pods: AtomicU32,
}

/// The lab's own numbering: `10.77.0.n` and `fd77::n`, all on one link.
pub fn addresses(n: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, n)),
        IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(n))),
    ]
}

impl Lab {
    /// Makes the wire. Needs [`ground::enter`] before it.
    pub fn new() -> Result<Self> {
        ground::here()?;
        let netns = Netns::new()?;
        // The wire itself should say nothing: its own neighbour discovery would be noise in a capture.
        // Where /proc/sys is read-only the noise stays, and harms nothing.
        netns.run(|| {
            for scope in ["all", "default"] {
                fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").ok();
            }
        })?;
        let (bridge, tap) = link::converse(&netns, async |handle| {
            let bridge = link::make_bridge(&handle, "wire").await?;
            let (inject, arrive) = link::make_veth(&handle, "tap-in", "tap-out").await?;
            link::add_address(&handle, inject, link::MARKER_ADDRESS.into(), 30).await?;
            link::set_up(&handle, inject, true).await?;
            link::set_up(&handle, arrive, true).await?;
            Ok((bridge, Tap { bridge, inject, arrive }))
        })?;
        Ok(Self { wire: netns, bridge, tap, pods: AtomicU32::new(0) })
    }

    /// Makes a pod: a namespace with loopback up and one link `eth0` that carries `addresses`
    /// (IPv4 as /24, IPv6 as /64, usable at once), plugged into the wire.
    pub fn pod(&self, name: &str, addresses: &[IpAddr]) -> Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        ensure!(
            number < MAX_PODS,
            "a lab holds at most {MAX_PODS} pods: drop some or make another"
        );
        let netns = Netns::new()?;
        let port = link::converse(&self.wire, async |handle| {
            let (port, far) =
                link::make_veth(&handle, &format!("port{number}"), &format!("far{number}")).await?;
            link::plug(&handle, port, self.bridge).await?;
            link::give(&handle, far, &netns).await?;
            Ok(port)
        })?;
        link::converse(&netns, async |handle| {
            let loopback = link::index_of(&handle, "lo").await?;
            link::set_up(&handle, loopback, true).await?;
            let index = link::index_of(&handle, link::POD_LINK).await?;
            for address in addresses {
                let prefix = if address.is_ipv4() { 24 } else { 64 };
                link::add_address(&handle, index, *address, prefix).await?;
            }
            link::set_up(&handle, index, true).await
        })?;
        Ok(Pod::new(name, netns, self.wire.clone(), port, addresses))
    }

    /// The namespace of the wire, for a capture and for tests that look at the bridge.
    pub fn wire(&self) -> &Netns {
        &self.wire
    }

    pub(crate) fn tap(&self) -> Tap {
        self.tap
    }
}
