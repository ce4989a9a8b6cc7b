//! Drives one handshake over a TCP stream, record by record: rustls sees nothing of what comes
//! behind its end, so that what follows is opened under the same rules from its first byte. Called
//! by `handshake`.
//!
//! Never: a decision about the peer; application data read by rustls.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, ErrorKind};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error};
use tokio::net::TcpStream;

use crate::relay::RecordError;

/// What a read asks for at most: a chain of three P-256 certificates, a key share of ML-KEM and the
/// rest of a flight fit.
const READ: usize = 8 * 1024;

/// The most that may wait for the end of a handshake message: rustls itself takes no message over
/// 64 KiB, and this leaves room for the records around it.
const MAX_INCOMING: usize = 80 * 1024;

const HEADER: usize = 5;

/// Either role of an unbuffered rustls connection.
pub(super) trait Part {
    type Data;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;
}

impl Part for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Part for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// What is due after one step.
enum Next {
    Step,
    Send,
    /// Another record, or the rest of this one.
    Feed,
    Done,
    Failed(Error),
}

/// The bytes of one handshake, both ways.
pub(super) struct Flight {
    incoming: Vec<u8>,
    /// How many of the incoming bytes rustls may see: whole records only.
    shown: usize,
    outgoing: Vec<u8>,
}

impl Flight {
    /// `incoming` is what has been read already.
    pub(super) fn new(incoming: Vec<u8>) -> Self {
        Self { incoming, shown: 0, outgoing: Vec::new() }
    }

    /// What came behind the handshake.
    pub(super) fn rest(&self) -> &[u8] {
        &self.incoming
    }

    /// To the end of the handshake. On an error the alert that says why has left, if the socket
    /// took it at once.
    pub(super) async fn drive(
        &mut self,
        tcp: &TcpStream,
        part: &mut impl Part,
    ) -> Result<(), RecordError> {
        loop {
            match self.step(part) {
                Next::Step => {}
                Next::Send => self.send(tcp).await?,
                Next::Feed => self.feed(tcp).await?,
                Next::Done => return self.send(tcp).await,
                Next::Failed(error) => {
                    // Only as long as something waits to be sent: rustls would look at what made it
                    // fail once more otherwise, and trips over that.
                    while part.state().wants_write() && matches!(self.step(part), Next::Step) {}
                    // The peer learns it by the closing connection otherwise.
                    let _ = tcp.try_write(&self.outgoing);
                    return Err(error.into());
                }
            }
        }
    }

    fn step(&mut self, part: &mut impl Part) -> Next {
        let shown = &mut self.incoming[..self.shown];
        let UnbufferedStatus { discard, state } = part.step(shown);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(&mut self.outgoing, |room| message.encode(room))
            }
            Ok(ConnectionState::TransmitTlsData(flight)) => {
                flight.done();
                Next::Send
            }
            Ok(ConnectionState::BlockedHandshake) => Next::Feed,
            Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                Next::Failed(Error::HandshakeNotComplete)
            }
            // Records are shown one by one, so there is no data before the end of the handshake.
            Ok(_) => Next::Failed(Error::HandshakeNotComplete),
            Err(error) => Next::Failed(error),
        };
        self.incoming.drain(..discard);
        self.shown -= discard;
        match next {
            // rustls may write already, but the peer has not proven itself yet.
            Next::Done if part.state().is_handshaking() => Next::Feed,
            next => next,
        }
    }

    /// Shows the next whole record, reading as long as there is none.
    async fn feed(&mut self, tcp: &TcpStream) -> Result<(), RecordError> {
        loop {
            if let Some(length) = record(&self.incoming[self.shown..]) {
                self.shown += length;
                return Ok(());
            }
            if self.incoming.len() >= MAX_INCOMING {
                return Err(Error::PeerSentOversizedRecord.into());
            }
            self.incoming.reserve(READ);
            tcp.readable().await?;
            match tcp.try_read_buf(&mut self.incoming) {
                Ok(0) => return Err(RecordError::Truncated),
                Ok(_) => {}
                Err(error) if is_nothing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn send(&mut self, tcp: &TcpStream) -> Result<(), RecordError> {
        let mut left = &self.outgoing[..];
        while !left.is_empty() {
            match tcp.try_write(left) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(bytes) => left = &left[bytes..],
                Err(error) if is_nothing(&error) => tcp.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.clear();
        Ok(())
    }
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Next {
    let at = outgoing.len();
    let needed = match encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Next::Step,
    };
    outgoing.resize(at + needed, 0);
    match encode(&mut outgoing[at..]) {
        Ok(_) => Next::Step,
        Err(error) => Next::Failed(Error::General(error.to_string())),
    }
}

/// The length of the record in front, if it is there whole. What cannot be a record is shown to
/// rustls as it is, which knows the word for it.
fn record(bytes: &[u8]) -> Option<usize> {
    let [kind, major, _, high, low] = bytes.first_chunk::<HEADER>()?;
    if !(20..=23).contains(kind) || *major != 3 {
        return Some(bytes.len());
    }
    let length = HEADER + usize::from(u16::from_be_bytes([*high, *low]));
    (length <= bytes.len()).then_some(length)
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
