//! One authenticated connection as tonic wants it: bytes, and who is at the other end. HTTP/2 writes
//! headers and message of an answer one by one and flushes after them: they leave together, in one TLS
//! record and one system call.
//!
//! Never: outlives its permit; a caller without a certificate has a deadline for all that it came
//! for.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
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

/// As much as waits for a flush: one TLS record.
const GATHERED_BYTES: usize = 16 * 1024;

pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    /// What was written and is not flushed; without room of its own while there is nothing.
    gathered: Vec<u8>,
    /// How much of it TLS has taken.
    taken: usize,
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
        let gathered = Vec::new();
        Self { tls, gathered, taken: 0, caller, deadline, _permit: permit, _counted: counted }
    }

    /// Hands over to TLS what was gathered.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.gathered.len() {
            let left = &self.gathered[self.taken..];
            match ready!(Pin::new(&mut self.tls).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.taken += taken,
            }
        }
        // A watch sleeps for hours: it keeps no room for what it may say one day.
        self.gathered = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
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
        if self.gathered.len() + buf.len() > GATHERED_BYTES {
            ready!(self.poll_hand_over(cx))?;
        }
        if buf.len() > GATHERED_BYTES {
            return Pin::new(&mut self.tls).poll_write(cx, buf);
        }
        self.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_over(cx))?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_over(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
