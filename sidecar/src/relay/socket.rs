//! System calls on a stream, with what they teach: a short read or write means that the socket is
//! empty or full, so the next try would only be told so. Called by `records` and `duplex`.
//!
//! Never: a call that is known to come back with nothing; a wait.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there. `None`: nothing. `Some(0)`: the end.
pub(super) fn read(tcp: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    let asked = into.len();
    let read = told(tcp.try_read(into))?;
    Ok(read.inspect(|bytes| drained(tcp, *bytes, asked)))
}

/// The same into several pieces.
pub(super) fn read_vectored(
    tcp: &TcpStream,
    into: &mut [IoSliceMut<'_>],
) -> io::Result<Option<usize>> {
    let asked = into.iter().map(|piece| piece.len()).sum();
    let read = told(tcp.try_read_vectored(into))?;
    Ok(read.inspect(|bytes| drained(tcp, *bytes, asked)))
}

/// Reads without having been told that there is something: the first bytes of a connection are
/// often there before the runtime has heard of them.
pub(super) fn read_unasked(tcp: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    told(recv(tcp.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from))
}

/// Writes what the socket takes. `None`: nothing now.
pub(super) fn write(tcp: &TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    let written = told(tcp.try_write(bytes))?;
    Ok(written.inspect(|written| filled(tcp, *written, bytes.len())))
}

/// The same from several pieces.
pub(super) fn write_vectored(tcp: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    let asked = pieces.iter().map(|piece| piece.len()).sum();
    let written = told(tcp.try_write_vectored(pieces))?;
    Ok(written.inspect(|written| filled(tcp, *written, asked)))
}

/// Neither bytes nor an end nor an error wait, as the kernel knows it now: the runtime knows only
/// what its last look at the sockets showed.
pub(super) fn is_silent(tcp: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    matches!(told(recv(tcp.as_raw_fd(), &mut [0], flags).map_err(io::Error::from)), Ok(None))
}

fn told(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        // Interrupted before anything moved: the readiness stands, and the caller comes again.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A short read emptied the socket. The runtime is told, so that it waits for the next event. It
/// remembers an end of stream that came along, and says so at the next read.
fn drained(tcp: &TcpStream, read: usize, asked: usize) {
    if read > 0 && read < asked {
        forget(tcp, Interest::READABLE);
    }
}

/// A short write filled it.
fn filled(tcp: &TcpStream, written: usize, asked: usize) {
    if written < asked {
        forget(tcp, Interest::WRITABLE);
    }
}

fn forget(tcp: &TcpStream, interest: Interest) {
    // The closure's answer is what makes the runtime forget; there is no system call in it.
    let _ = tcp.try_io(interest, || io::Result::<()>::Err(ErrorKind::WouldBlock.into()));
}
