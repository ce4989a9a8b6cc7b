//! One TLS connection over one TCP stream, once its handshake is over: rustls keeps the key
//! schedule, the two boxes keep the bytes, and this ties them to the socket. Every step is a poll,
//! since the relay waits for many things at once. Made by `tls`, called by the relays of this room.
//!
//! Never: a buffer kept while nothing moves; an end of stream without close_notify treated as a
//! clean one; a byte handed out of a record that did not open.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::after::{After, Asks, CLOSE_NOTIFY, OUR_KEY_UPDATE};
use super::carrier::Framing;
use super::inbox::{Inbox, MOST_PIECES};
use super::outbox::{FillError, Outbox};
use super::seal::{Kind, Opener, Sealer};
use super::shelf::MOST_RECORDS;
use super::socket;

/// A TLS connection and its stream.
#[derive(Debug)]
pub struct Records {
    tcp: TcpStream,
    schedule: Schedule,
    sealer: Sealer,
    opener: Opener,
    inbox: Inbox,
    outbox: Outbox,
    after: After,
    ended: bool,
    /// How many records the next read of a workload may fill: it grows while it does.
    appetite: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Something was decrypted.
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
    Tls(#[from] Error),
}

/// rustls' part after the handshake: the next keys of each direction.
enum Schedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Schedule {
    fn next_to_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(client) => client.update_tx_secret(),
            Self::Server(server) => server.update_tx_secret(),
        }
    }

    fn next_to_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(client) => client.update_rx_secret(),
            Self::Server(server) => server.update_rx_secret(),
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

impl Records {
    /// A client's handshake is over; `received` came behind it.
    pub fn client(
        tcp: TcpStream,
        tls: UnbufferedClientConnection,
        received: &[u8],
    ) -> Result<Box<Self>, RecordError> {
        let (secrets, schedule) = tls.dangerous_into_kernel_connection()?;
        Self::new(tcp, &secrets, Schedule::Client(schedule), received)
    }

    /// A server's handshake is over; `received` came behind it.
    pub fn server(
        tcp: TcpStream,
        tls: UnbufferedServerConnection,
        received: &[u8],
    ) -> Result<Box<Self>, RecordError> {
        let (secrets, schedule) = tls.dangerous_into_kernel_connection()?;
        Self::new(tcp, &secrets, Schedule::Server(schedule), received)
    }

    fn new(
        tcp: TcpStream,
        secrets: &ExtractedSecrets,
        schedule: Schedule,
        received: &[u8],
    ) -> Result<Box<Self>, RecordError> {
        let is_client = matches!(schedule, Schedule::Client(_));
        // A socket that cannot say it is broken, and shows that at its first read.
        let segment = SockRef::from(&tcp).tcp_mss().unwrap_or_default() as usize;
        // Boxed: it passes through many hands, and each future would keep a place as large.
        Ok(Box::new(Self {
            tcp,
            schedule,
            sealer: Sealer::new(secrets.tx.0, &secrets.tx.1)?,
            opener: Opener::new(secrets.rx.0, &secrets.rx.1)?,
            inbox: Inbox::new(received),
            outbox: Outbox::new(segment),
            after: After::new(is_client),
            ended: false,
            appetite: 1,
        }))
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The stream alone, for closing it in the way the ending asks for.
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Opens the next record of data, reading from the socket when there is none. The caller
    /// consumes all plaintext before it asks again: that is the backpressure.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived, RecordError>> {
        loop {
            if self.open_next()? {
                return Poll::Ready(Ok(Arrived::Progress));
            }
            if self.ended {
                return Poll::Ready(Ok(Arrived::CleanEnd));
            }
            if self.tcp.poll_read_ready(cx)?.is_pending() {
                self.inbox.sleep();
                return Poll::Pending;
            }
            match socket::read(&self.tcp, self.inbox.room())? {
                Some(0) => return Poll::Ready(Err(RecordError::Truncated)),
                Some(bytes) => self.inbox.arrived(bytes),
                None => {}
            }
        }
    }

    /// Opens records that are here whole until one has data. False: none has. What is at hand must
    /// be consumed first: it is what the caller gets again.
    pub(super) fn open_next(&mut self) -> Result<bool, RecordError> {
        if !self.inbox.chunk().is_empty() {
            return Ok(true);
        }
        while !self.ended {
            let asks = match self.inbox.open(&mut self.opener)? {
                None => return Ok(false),
                Some((Kind::Data, plain)) => {
                    let is_empty = plain.is_empty();
                    self.after.data()?;
                    if is_empty {
                        continue;
                    }
                    return Ok(true);
                }
                Some((Kind::Alert, alert)) => self.after.alert(alert)?,
                Some((Kind::Handshake, part)) => self.after.handshake(part)?,
            };
            match asks {
                Asks::Nothing => {}
                Asks::End => self.ended = true,
                Asks::NewKeys { answered } => {
                    let (sequence, secrets) = self.schedule.next_to_receive()?;
                    self.opener = Opener::new(sequence, &secrets)?;
                    if answered {
                        self.refresh_keys()?;
                    }
                }
            }
        }
        Ok(false)
    }

    /// The plaintext at hand: one record at most, empty when there is none.
    pub fn chunk(&mut self) -> &[u8] {
        self.inbox.chunk()
    }

    /// Is the close_notify already here, behind the plaintext that was just consumed?
    pub fn has_clean_end(&self) -> bool {
        self.ended && self.inbox.chunk().is_empty()
    }

    pub fn consume(&mut self, bytes: usize) {
        self.inbox.consume(bytes);
    }

    /// Sets plaintext aside that a workload is to have, so that one write takes several records.
    pub(super) fn set_aside(&mut self, bytes: usize) {
        self.inbox.set_aside(bytes);
    }

    pub(super) fn may_set_aside(&self) -> bool {
        self.inbox.may_set_aside()
    }

    pub(super) fn has_ready(&self) -> bool {
        self.inbox.has_ready()
    }

    /// Writes to the workload what was set aside. `None`: it takes nothing now.
    pub(super) fn deliver(&mut self, workload: &TcpStream) -> io::Result<Option<usize>> {
        let mut slices = [IoSlice::new(&[]); MOST_PIECES];
        let written = match self.inbox.ready(&mut slices) {
            1 => socket::write(workload, &slices[0])?,
            pieces => socket::write_vectored(workload, &slices[..pieces])?,
        };
        match written {
            Some(bytes) => self.inbox.taken(bytes),
            None => self.inbox.sleep(),
        }
        Ok(written)
    }

    /// Appends a control frame, or any few bytes that belong into one record.
    pub fn write(&mut self, frame: &[u8]) -> Result<(), RecordError> {
        Ok(self.outbox.frame(frame, &mut self.sealer)?)
    }

    /// Reads from `workload` right into records. `Some(0)` is its end, `None` nothing now.
    pub(super) fn take_from<F: Framing>(
        &mut self,
        workload: &TcpStream,
        framing: &mut F,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<Option<usize>, FillError> {
        let appetite = if keep.is_some() { 1 } else { self.appetite };
        let mut asked = 0;
        let read = self.outbox.fill(appetite, framing, &mut self.sealer, |areas| {
            asked = areas.iter().map(|area| area.len()).sum();
            let read = match &mut *areas {
                [area] => socket::read(workload, area)?,
                areas => socket::read_vectored(workload, &mut *areas)?,
            };
            if let (Some(kept), Some(bytes), [area]) = (keep.take(), read, &*areas) {
                kept.extend_from_slice(&area[..bytes]);
            }
            Ok(read)
        })?;
        if let Some(bytes) = read {
            self.appetite = match () {
                () if bytes == asked => (appetite * 2).min(MOST_RECORDS),
                () if bytes * 2 < asked => 1,
                () => appetite,
            };
        }
        Ok(read)
    }

    /// Appends bytes of a workload that were kept, in as many records as they need.
    pub(super) fn say<F: Framing>(
        &mut self,
        mut bytes: &[u8],
        framing: &mut F,
    ) -> Result<(), FillError> {
        while !bytes.is_empty() {
            let said = self.outbox.fill(1, framing, &mut self.sealer, |areas| {
                let area = &mut areas[0];
                let length = area.len().min(bytes.len());
                area[..length].copy_from_slice(&bytes[..length]);
                Ok(Some(length))
            })?;
            bytes = &bytes[said.unwrap_or(bytes.len())..];
        }
        Ok(())
    }

    /// May a workload be read? Not while the socket has not taken what it said before.
    pub fn has_room(&self) -> bool {
        !self.outbox.is_waiting()
    }

    /// What is to be sent waits, and the connection sleeps meanwhile.
    pub(super) fn rest(&mut self) {
        self.outbox.sleep();
    }

    pub(super) fn has_nothing_to_send(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Seals what is open and pushes all into the socket. Ready when it has gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.seal().map_err(io::Error::other)?;
        while self.outbox.is_waiting() {
            match socket::write(&self.tcp, self.outbox.waiting())? {
                Some(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(bytes) => self.outbox.sent(bytes),
                None => {
                    self.outbox.sleep();
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The kernel holds neither bytes nor an end nor an error for us, and all of ours is gone.
    pub(super) fn is_silent(&self) -> bool {
        self.outbox.is_empty() && socket::is_silent(&self.tcp)
    }

    fn seal(&mut self) -> Result<(), Error> {
        if self.sealer.is_worn() {
            return self.refresh_keys();
        }
        self.outbox.seal(Kind::Data, &mut self.sealer)
    }

    /// New traffic keys for what we send from here on (RFC 8446 section 4.6.3). The peer's own
    /// direction is the peer's to renew.
    pub fn refresh_keys(&mut self) -> Result<(), Error> {
        self.outbox.message(Kind::Handshake, &OUR_KEY_UPDATE, &mut self.sealer)?;
        let (sequence, secrets) = self.schedule.next_to_send()?;
        self.sealer = Sealer::new(sequence, &secrets)?;
        Ok(())
    }

    /// Says close_notify; it leaves with the next flush.
    pub fn say_close(&mut self) -> Result<(), RecordError> {
        Ok(self.outbox.message(Kind::Alert, &CLOSE_NOTIFY, &mut self.sealer)?)
    }
}
