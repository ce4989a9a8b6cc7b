//! One authenticated connection as tonic wants it: bytes, and who is at the other end.
//!
//! Never: outlives its permit; a caller without a certificate has a deadline for all that it came
//! for.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::counted::Counted;
use crate::attest::Caller;

/// A stranger connects for one `Issue`, which takes milliseconds; this bounds what it can hold for
/// nothing.
const STRANGER_DEADLINE: Duration = Duration::from_secs(30);

pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    caller: Caller,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Connection {
    pub(super) fn new(
        tls: TlsStream<TcpStream>,
        caller: Caller,
        permit: OwnedSemaphorePermit,
        counted: Counted,
    ) -> Self {
        let stranger = caller.peer.is_none();
        let deadline = stranger.then(|| Box::pin(tokio::time::sleep(STRANGER_DEADLINE)));
        Self { tls, caller, deadline, _permit: permit, _counted: counted }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
