//! Listeners for redirected connections. Called by `inbound` and `outbound`, one listener a
//! worker, all on the same port (SO_REUSEPORT), so that a connection stays on the core it came to.
//!
//! Never: blocks or spins when descriptors run out; hands out a connection without saying whether
//! it was redirected to us.

// SPDX-License-Identifier: Apache-2.0

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::dial::{is_out_of_descriptors, reset};
use crate::addr::{ListenAddr, OrigDst, PeerAddr};

/// How many connections the kernel may hold for us before it drops new ones: the kernel's own
/// default ceiling (net.core.somaxconn) since Linux 5.4.
const BACKLOG: i32 = 4096;

/// How long a listener rests after it had to turn a connection away for want of descriptors:
/// long enough not to spin, short enough that service resumes well inside 5 s.
const REST_WHEN_EXHAUSTED: Duration = Duration::from_millis(20);

/// Where an accepted connection meant to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The rules redirected it; this is what was dialled.
    Redirected(OrigDst),
    /// Somebody dialled our own listener.
    Direct,
}

/// One accepted connection.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub from: PeerAddr,
    pub origin: Origin,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; is another process on that port?")]
pub struct BindError {
    pub address: ListenAddr,
    pub source: io::Error,
}

/// A bound listener with one descriptor in reserve.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    port: u16,
    reserve: RefCell<Option<File>>,
}

impl Listener {
    /// Binds `address` (a `[::]` address takes IPv4 as well).
    pub fn bind(address: ListenAddr) -> Result<Self, BindError> {
        open(address).map_err(|source| BindError { address, source })
    }

    /// The next connection. Waits when there is none; when descriptors have run out it turns the
    /// waiting connection away with a reset, rests, and goes on; `on_exhausted` is told each time.
    pub async fn accept(&self, on_exhausted: impl Fn()) -> Accepted {
        loop {
            match self.inner.accept().await {
                Ok((stream, from)) => {
                    let from = PeerAddr::canonical(from);
                    let origin = origin_of(&stream, from, self.port);
                    return Accepted { stream, from, origin };
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    on_exhausted();
                    self.turn_one_away().await;
                }
                // The peer gave up between SYN and accept; the next one is not to blame.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    pub fn local_address(&self) -> io::Result<ListenAddr> {
        self.inner.local_addr().map(ListenAddr)
    }

    /// Gives up the reserved descriptor to accept and reset one connection, then takes it back:
    /// the peer learns at once instead of hanging in the backlog.
    async fn turn_one_away(&self) {
        drop(self.reserve.borrow_mut().take());
        if let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::ZERO, self.inner.accept()).await
        {
            reset(stream);
        }
        *self.reserve.borrow_mut() = spare_descriptor().ok();
        tokio::time::sleep(REST_WHEN_EXHAUSTED).await;
    }
}

fn open(address: ListenAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address.0), Type::STREAM, Some(Protocol::TCP))?;
    if address.0.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.0.into())?;
    socket.listen(BACKLOG)?;
    let inner = TcpListener::from_std(socket.into())?;
    let port = inner.local_addr()?.port();
    Ok(Listener { inner, port, reserve: RefCell::new(Some(spare_descriptor()?)) })
}

fn spare_descriptor() -> io::Result<File> {
    File::open("/dev/null")
}

/// Conntrack knows where a redirected connection meant to go. One that was not redirected shows
/// our own address, or nothing at all.
fn origin_of(stream: &TcpStream, from: PeerAddr, own_port: u16) -> Origin {
    let socket = SockRef::from(stream);
    let found =
        if from.ip().is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let Some(dialled) = found.ok().and_then(|address| address.as_socket()) else {
        return Origin::Direct;
    };
    let dialled = OrigDst::canonical(dialled);
    // Only what was dialled on our own port can be a connection to ourselves.
    let is_ours = dialled.port() == own_port
        && stream.local_addr().map_or(true, |local| dialled == OrigDst::canonical(local));
    if is_ours { Origin::Direct } else { Origin::Redirected(dialled) }
}
