//! One TLS connection over one TCP stream, driven by hand: rustls is owned whole, since a key
//! update needs it whole, and every step is a poll, since the relay waits for many things at once.
//! Called by the relays of this room and by the handshakes of `tls`.
//!
//! Never: buffers on its own account beyond what rustls holds; treats an end of stream without
//! close_notify as a clean one.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use socket2::SockRef;
use tokio::net::TcpStream;

/// Most ciphertext that may wait for the socket before the relay stops reading the other side:
/// four full records, enough to fill one send buffer's worth in a write and no more memory.
pub const MOST_PENDING: usize = 64 * 1024;

/// A TLS connection and its stream.
#[derive(Debug)]
pub struct Records {
    tcp: TcpStream,
    tls: Connection,
    ended: bool,
    pending: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Something was decrypted, or the handshake moved on.
    Progress,
    /// The peer said close_notify: a clean end.
    CleanEnd,
}

/// Why a TLS connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the peer's stream ended without close_notify: the bytes may have been cut short")]
    Truncated,
    #[error("the peer's TLS is unacceptable: {0}")]
    Tls(#[from] rustls::Error),
}

struct Reading<'a>(&'a TcpStream);

impl Read for Reading<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

struct Writing<'a>(&'a TcpStream);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Records {
    pub fn new(tcp: TcpStream, tls: impl Into<Connection>) -> Self {
        let mut tls = tls.into();
        // The relay bounds what is pending itself: rustls' own limit would split a frame.
        tls.set_buffer_limit(None);
        Self { tcp, tls, ended: false, pending: 0 }
    }

    pub fn tls(&self) -> &Connection {
        &self.tls
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The stream alone, for closing it in the way the ending asks for.
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Reads what the socket holds and decrypts it. Ready when something has changed. The caller
    /// consumes all plaintext before it asks again: that is the backpressure.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived, RecordError>> {
        if self.ended {
            return Poll::Ready(Ok(Arrived::CleanEnd));
        }
        loop {
            match self.tls.read_tls(&mut Reading(&self.tcp)) {
                Ok(0) => return Poll::Ready(Err(RecordError::Truncated)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            let handshaking = self.tls.is_handshaking();
            let state = self.tls.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 {
                // A close_notify that came along is found once the bytes are consumed.
                return Poll::Ready(Ok(Arrived::Progress));
            }
            if state.peer_has_closed() {
                self.ended = true;
                return Poll::Ready(Ok(Arrived::CleanEnd));
            }
            if handshaking || self.tls.wants_write() {
                return Poll::Ready(Ok(Arrived::Progress));
            }
        }
    }

    /// The plaintext at hand: one record at most, empty when there is none.
    pub fn chunk(&mut self) -> &[u8] {
        // An error here only says "nothing yet" or "ended", which `poll_read` tells better.
        self.tls.reader().into_first_chunk().unwrap_or_default()
    }

    /// Is the close_notify already here, behind the plaintext that was just consumed?
    pub fn has_clean_end(&mut self) -> bool {
        if !self.ended && matches!(self.tls.reader().into_first_chunk(), Ok([])) {
            self.ended = true;
        }
        self.ended
    }

    pub fn consume(&mut self, bytes: usize) {
        self.tls.reader().consume(bytes);
    }

    /// Encrypts `bytes` (one record if at most 16 KiB). It leaves with the next flush.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.tls.writer().write_all(bytes)?;
        self.pending += bytes.len();
        Ok(())
    }

    /// The same for two pieces that belong into one record, without joining them first.
    pub fn write_two(&mut self, head: &[u8], body: &[u8]) -> Result<(), RecordError> {
        let both = [IoSlice::new(head), IoSlice::new(body)];
        let written = self.tls.writer().write_vectored(&both)?;
        debug_assert_eq!(written, head.len() + body.len(), "rustls has no limit to hold it back");
        self.pending += written;
        Ok(())
    }

    /// May more be written before a flush?
    pub fn has_room(&self) -> bool {
        self.pending < MOST_PENDING
    }

    /// Pushes what is pending into the socket. Ready when all is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Writing(&self.tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.pending = 0;
        Poll::Ready(Ok(()))
    }

    /// The kernel holds neither bytes nor an end nor an error for us, and all of ours is gone.
    pub fn has_silent_socket(&self) -> bool {
        let mut byte = [MaybeUninit::uninit(); 1];
        let peeked = SockRef::from(&self.tcp).peek(&mut byte);
        !self.tls.wants_write()
            && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// New traffic keys for what we send from here on (RFC 8446 section 4.6.3).
    pub fn refresh_keys(&mut self) -> Result<(), RecordError> {
        Ok(self.tls.refresh_traffic_keys()?)
    }

    /// Says close_notify; it leaves with the next flush.
    pub fn say_close(&mut self) {
        self.tls.send_close_notify();
    }
}
