//! A TCP port that answers one bounded request a connection: bound before it is served, so that a
//! taken port is an error at the start. Called by `ops`, and by the room of the workload's probes.
//!
//! Never: decides what is answered.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::http::{self, Answer};
use crate::addr::ListenAddr;

/// Connections that wait to be served.
const BACKLOG: i32 = 128;

/// A bound port.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
}

/// How much of us others may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections served at once; more wait in the backlog.
    pub connections: usize,
    /// For a request's head to arrive.
    pub head: Duration,
    /// Whole life of a connection.
    pub whole: Duration,
}

impl Port {
    /// See [`listen`].
    pub fn bind(address: ListenAddr) -> io::Result<Self> {
        listen(address).map(Self::of)
    }

    pub fn of(listener: TcpListener) -> Self {
        Self { listener }
    }

    pub fn local_address(&self) -> io::Result<ListenAddr> {
        self.listener.local_addr().map(ListenAddr)
    }

    /// Serves until the future is dropped. `answer` is told the address of ours that was dialled.
    pub async fn serve<F, A>(self, bounds: Bounds, answer: F) -> Infallible
    where
        F: Fn(Request<Incoming>, SocketAddr) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send,
    {
        let answer = Arc::new(answer);
        let permits = Arc::new(Semaphore::new(bounds.connections));
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(dialled) = stream.local_addr() else { continue };
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let answer = |request| answer(request, dialled);
                http::serve_one(stream, (bounds.head, bounds.whole), answer).await;
                drop(permit);
            });
        }
    }
}

/// Binds. `[::]` serves both families, or IPv4 alone where the kernel has no IPv6. Must be called
/// within the runtime that will serve it.
pub fn listen(address: ListenAddr) -> io::Result<TcpListener> {
    let bound = bind(address.0).or_else(|why| {
        let any_v6 = address.0.is_ipv6() && address.ip().is_unspecified();
        if any_v6 && no_ipv6(&why) {
            return bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        }
        Err(why)
    });
    bound.and_then(TcpListener::from_std)
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn no_ipv6(why: &io::Error) -> bool {
    use nix::errno::Errno;
    let known = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    known.iter().any(|errno| why.raw_os_error() == Some(*errno as i32))
}
