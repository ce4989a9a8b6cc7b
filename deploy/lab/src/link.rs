//! Links, addresses and routes over netlink, each conversation on a throwaway thread inside its
//! namespace. Called by `lab` and `pod`.
//! Never: calls `ip`, and never touches a link of the host's own namespace.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::time::timeout;

use crate::netns::Netns;

/// One netlink conversation takes milliseconds; a loaded two-core machine may need a second.
const CONVERSATION_LIMIT: Duration = Duration::from_secs(20);

/// The pod's only link besides loopback.
pub(crate) const POD_LINK: &str = "eth0";

/// On the marker's own link, of TEST-NET-1 (RFC 5737): no pod has such an address.
pub(crate) const MARKER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The links of the wire's namespace that a capture needs to know, by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// The bridge itself: what it hands up to its own host has been seen on a port already.
    pub(crate) bridge: u32,
    /// A marker that is sent by `inject` arrives at `arrive`: how a capture finds its queue's end.
    pub(crate) inject: u32,
    pub(crate) arrive: u32,
}

/// Speaks netlink inside `netns`.
pub(crate) fn converse<T, F>(netns: &Netns, work: F) -> Result<T>
where
    T: Send,
    F: AsyncFnOnce(Handle) -> Result<T> + Send,
{
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for netlink")?;
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().context("cannot open a netlink socket")?;
            tokio::spawn(connection);
            timeout(CONVERSATION_LIMIT, work(handle))
                .await
                .context("the kernel did not answer over netlink within 20 s")?
        })
    })?
}

pub(crate) async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let link = found.with_context(|| format!("cannot look up link {name}"))?;
    Ok(link.with_context(|| format!("there is no link {name}"))?.header.index)
}

pub(crate) async fn set_up(handle: &Handle, index: u32, up: bool) -> Result<()> {
    let message = LinkUnspec::new_with_index(index);
    let message = if up { message.up() } else { message.down() };
    handle.link().set(message.build()).execute().await.context("cannot change a link's state")
}

/// Makes a bridge, up, and returns its index.
pub(crate) async fn make_bridge(handle: &Handle, name: &str) -> Result<u32> {
    handle.link().add(LinkBridge::new(name).up().build()).execute().await.context(
        "cannot make a bridge: this kernel seems to lack the bridge module (try `modprobe bridge`)",
    )?;
    index_of(handle, name).await
}

/// Makes a veth pair in this namespace and returns the two indices.
pub(crate) async fn make_veth(handle: &Handle, near: &str, far: &str) -> Result<(u32, u32)> {
    handle.link().add(LinkVeth::new(near, far).build()).execute().await.context(
        "cannot make a veth pair: this kernel seems to lack the veth module (try `modprobe veth`)",
    )?;
    Ok((index_of(handle, near).await?, index_of(handle, far).await?))
}

/// Plugs link `port` into bridge `bridge` and turns it on.
pub(crate) async fn plug(handle: &Handle, port: u32, bridge: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(port).controller(bridge).up().build();
    handle.link().set(message).execute().await.context("cannot plug a link into the bridge")
}

/// Moves link `index` into `target`, where it is called [`POD_LINK`].
pub(crate) async fn give(handle: &Handle, index: u32, target: &Netns) -> Result<()> {
    let message =
        LinkUnspec::new_with_index(index).name(POD_LINK).setns_by_fd(target.raw_fd()).build();
    handle.link().set(message).execute().await.context("cannot move a link into a pod")
}

/// Adds an address that is usable at once (no duplicate address detection).
pub(crate) async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<()> {
    let mut request = handle.address().add(index, address, prefix);
    if address.is_ipv6() {
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.with_context(|| format!("cannot add address {address}/{prefix}"))
}

/// Adds the default route of `gateway`'s family.
pub(crate) async fn add_default_route(handle: &Handle, gateway: IpAddr) -> Result<()> {
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
    };
    handle
        .route()
        .add(route)
        .execute()
        .await
        .with_context(|| format!("cannot add a default route by {gateway}"))
}
