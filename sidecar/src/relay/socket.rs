//! System calls on a stream, with what they teach: a short read or write means that the socket is
//! empty or full, so the next try would only be told so. Reads are made when the runtime says that
//! there is something, writes while it has not said that the socket is full. Called by `records`.
//!
//! Never: a second call that is known to come back with nothing; a wait.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};

use rustix::io::{Errno, readv, writev};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there. `None`: nothing. `Some(0)`: the end.
pub(super) fn read(tcp: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    let asked = into.len();
    let read = recv(tcp, into, RecvFlags::DONTWAIT).map(|(bytes, _)| bytes);
    learn(tcp, read, asked)
}

/// The same into several pieces.
pub(super) fn read_vectored(
    tcp: &TcpStream,
    into: &mut [IoSliceMut<'_>],
) -> io::Result<Option<usize>> {
    let asked = into.iter().map(|piece| piece.len()).sum();
    learn(tcp, readv(tcp, into), asked)
}

/// Writes what the socket takes. `None`: nothing now. Never asked of the kernel while the runtime
/// has not said that the socket is writable: writes ahead of its word were seen to stall relays.
pub(super) fn write(tcp: &TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    let written = tcp.try_io(Interest::WRITABLE, || {
        Ok(send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    });
    told(tcp, written, bytes.len())
}

/// The same from several pieces.
pub(super) fn write_vectored(tcp: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    let asked = pieces.iter().map(|piece| piece.len()).sum();
    let written = tcp.try_io(Interest::WRITABLE, || Ok(writev(tcp, pieces)?));
    told(tcp, written, asked)
}

fn told(tcp: &TcpStream, written: io::Result<usize>, asked: usize) -> io::Result<Option<usize>> {
    match written {
        Ok(bytes) => {
            if bytes < asked {
                forget(tcp, Interest::WRITABLE);
            }
            Ok(Some(bytes))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Neither bytes nor an end nor an error wait, as the kernel knows it now: the runtime knows only
/// what its last look at the sockets showed.
pub(super) fn is_silent(tcp: &TcpStream) -> bool {
    let peeked = recv(tcp, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK);
    peeked.err() == Some(Errno::AGAIN)
}

/// What less than was asked for teaches, the runtime is told, so that it waits for the next event.
/// It remembers an end of stream that came along, and says so at the next question.
fn learn(tcp: &TcpStream, read: Result<usize, Errno>, asked: usize) -> io::Result<Option<usize>> {
    match read {
        Ok(bytes) => {
            if (1..asked).contains(&bytes) {
                forget(tcp, Interest::READABLE);
            }
            Ok(Some(bytes))
        }
        Err(Errno::AGAIN) => {
            forget(tcp, Interest::READABLE);
            Ok(None)
        }
        // Nothing moved, and nothing was learned: the caller comes again.
        Err(Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn forget(tcp: &TcpStream, interest: Interest) {
    // The closure's answer is what makes the runtime forget; there is no system call in it.
    let _ = tcp.try_io(interest, || io::Result::<()>::Err(ErrorKind::WouldBlock.into()));
}
