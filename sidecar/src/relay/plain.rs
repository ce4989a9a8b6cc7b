//! Plaintext between two streams: what is not meshed (named exceptions, addresses outside of the
//! mesh) and permissive inbound. Called by `inbound` and `outbound`, which have counted and logged
//! why it is not encrypted.
//!
//! Never: chooses plaintext; it is only told to carry it.

// SPDX-License-Identifier: Apache-2.0

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::ending::Meter;

/// A quarter of a socket buffer's default: large enough for bulk, small enough to have two of it
/// a connection.
const BUFFER: usize = 16 * 1024;

/// How a plaintext connection ended.
#[derive(Debug)]
pub enum PlainEnding<I> {
    Completed,
    Reset(io::Error),
    /// Not a byte in either direction for the idle limit, and at most twice that long.
    Idle,
    Interrupted(I),
}

/// Copies both ways until both ends have closed, keeping half-close.
pub async fn plain<I>(
    workload: &mut TcpStream,
    other: &mut TcpStream,
    meter: &impl Meter,
    idle: Duration,
    interrupt: impl Future<Output = I>,
) -> PlainEnding<I> {
    let moved = Cell::new(false);
    let count_sent = |bytes| meter.to_peer(bytes);
    let count_received = |bytes| meter.to_workload(bytes);
    let mut workload = Watched { stream: workload, moved: &moved, count: &count_sent };
    let mut other = Watched { stream: other, moved: &moved, count: &count_received };
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut workload, &mut other, BUFFER, BUFFER);
    let mut copied = pin!(copied);
    let mut interrupt = pin!(interrupt);
    loop {
        tokio::select! {
            copied = &mut copied => return match copied {
                Ok(_) => PlainEnding::Completed,
                Err(error) => PlainEnding::Reset(error),
            },
            reason = &mut interrupt => return PlainEnding::Interrupted(reason),
            () = tokio::time::sleep(idle) => if !moved.take() { return PlainEnding::Idle },
        }
    }
}

/// A stream that counts what is read from it.
struct Watched<'a, F> {
    stream: &'a mut TcpStream,
    moved: &'a Cell<bool>,
    count: &'a F,
}

impl<F: Fn(usize)> AsyncRead for Watched<'_, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut *self.stream).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        if read > 0 {
            self.moved.set(true);
            (self.count)(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<F: Fn(usize)> AsyncWrite for Watched<'_, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.stream).poll_write(cx, bytes))?;
        self.moved.set(true);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
