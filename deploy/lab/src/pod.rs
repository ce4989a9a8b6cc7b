//! One pod: its namespace, addresses, sockets and processes. Called by the demo and the suites.
//! Never: resolves a name; addresses only, so that no resolver of the host is asked.

// SPDX-License-Identifier: Apache-2.0

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::launch::Command;
use crate::link;
use crate::netns::Netns;

/// Pods are one veth apart; longer than this means that nobody will ever answer. Linux sends its
/// second SYN after 1 s and its third after 3 s, so two lost ones are forgiven.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// As many as the kernel keeps by default (`net.core.somaxconn`).
const LISTEN_BACKLOG: u32 = 4096;

/// A network namespace with a name, plugged into the wire.
#[derive(Debug)]
pub struct Pod {
    name: String,
    netns: Netns,
    wire: Netns,
    port: u32,
    addresses: Vec<IpAddr>,
}

impl Pod {
    pub(crate) fn new(
        name: &str,
        netns: Netns,
        wire: Netns,
        port: u32,
        addresses: &[IpAddr],
    ) -> Self {
        Self { name: name.to_owned(), netns, wire, port, addresses: addresses.to_vec() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses that the pod was made with, in that order.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The first IPv4 address. Panics if the pod was made without one.
    pub fn v4(&self) -> IpAddr {
        *self.addresses.iter().find(|a| a.is_ipv4()).expect("the pod was made with an IPv4 address")
    }

    /// The first IPv6 address. Panics if the pod was made without one.
    pub fn v6(&self) -> IpAddr {
        *self.addresses.iter().find(|a| a.is_ipv6()).expect("the pod was made with an IPv6 address")
    }

    /// Runs `work` on a throwaway thread inside the pod and waits for it (it blocks: keep it short).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns.run(work)
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A program to start inside the pod.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(self.netns.clone(), &self.name, program)
    }

    /// Opens a TCP connection from inside the pod.
    pub async fn tcp_connect(&self, to: SocketAddr) -> Result<TcpStream> {
        let socket = self.tcp_socket(to)?;
        timeout(CONNECT_LIMIT, socket.connect(to))
            .await
            .with_context(|| format!("{}: no answer from {to} within 10 s", self.name))?
            .with_context(|| format!("{}: cannot connect to {to}", self.name))
    }

    /// Opens a TCP connection from inside the pod, from a chosen source address (port 0: any).
    pub async fn tcp_connect_from(&self, from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
        let socket = self.tcp_socket(to)?;
        socket.bind(from).with_context(|| format!("{}: cannot bind {from}", self.name))?;
        timeout(CONNECT_LIMIT, socket.connect(to))
            .await
            .with_context(|| format!("{}: no answer from {to} within 10 s", self.name))?
            .with_context(|| format!("{}: cannot connect from {from} to {to}", self.name))
    }

    /// Listens for TCP inside the pod (port 0: any).
    pub async fn tcp_listen(&self, on: SocketAddr) -> Result<TcpListener> {
        let socket = self.tcp_socket(on)?;
        socket.set_reuseaddr(true).context("cannot set SO_REUSEADDR")?;
        socket.bind(on).with_context(|| format!("{}: cannot bind {on}", self.name))?;
        socket
            .listen(LISTEN_BACKLOG)
            .with_context(|| format!("{}: cannot listen on {on}", self.name))
    }

    /// Adds an address to `eth0`.
    pub fn add_address(&self, address: IpAddr, prefix: u8) -> Result<()> {
        link::converse(&self.netns, async |handle| {
            let index = link::index_of(&handle, link::POD_LINK).await?;
            link::add_address(&handle, index, address, prefix).await
        })
    }

    /// Adds a default route (a pod has none at first: it reaches its own link only).
    pub fn default_route(&self, gateway: IpAddr) -> Result<()> {
        link::converse(&self.netns, async |handle| link::add_default_route(&handle, gateway).await)
    }

    /// Pulls the pod's cable out of the wire (its own link then reports no carrier).
    pub fn unplug(&self) -> Result<()> {
        link::converse(&self.wire, async |handle| link::set_up(&handle, self.port, false).await)
    }

    /// Puts the cable back.
    pub fn replug(&self) -> Result<()> {
        link::converse(&self.wire, async |handle| link::set_up(&handle, self.port, true).await)
    }

    /// A socket belongs to the namespace in which it was made, whoever uses it later.
    fn tcp_socket(&self, peer: SocketAddr) -> Result<TcpSocket> {
        let made = self.netns.run(|| match peer {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })?;
        made.with_context(|| format!("{}: cannot make a TCP socket", self.name))
    }
}
