//! Opening and cutting TCP connections. Called by `inbound` and `outbound`; `app` hands the same
//! dialer to the client of the CA.
//!
//! Never: retries, resolves names, chooses where to go.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use crate::addr::Endpoint;

/// Opens connections that the interception rules let pass: under our user and with our mark.
#[derive(Clone, Copy, Debug)]
pub struct Dialer {
    mark: Option<u32>,
    timeout: Duration,
}

/// Why a dial came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dialling {endpoint} took longer than {after:?}; is the other side up?")]
    TimedOut { endpoint: Endpoint, after: Duration },
    #[error("dialling {endpoint} failed: {source}")]
    Unreachable { endpoint: Endpoint, source: io::Error },
    #[error("no file descriptor is left to dial {endpoint}; raise the nofile limit")]
    NoDescriptors { endpoint: Endpoint },
}

impl Dialer {
    /// `mark` is the SO_MARK that exempts us from interception; `None` where the rules go by
    /// user alone.
    pub fn new(mark: Option<u32>, timeout: Duration) -> Self {
        Self { mark, timeout }
    }

    /// May we set the mark at all? Asked once at start, so that a missing capability is one
    /// clear line then and not a failure of every connection later.
    pub fn probe(&self) -> io::Result<()> {
        self.socket(SocketAddr::from(([127, 0, 0, 1], 0))).map(drop)
    }

    /// A connected stream with Nagle off, or the reason.
    pub async fn dial(&self, endpoint: Endpoint) -> Result<TcpStream, DialError> {
        let attempt = async {
            let socket = self.socket(endpoint.0)?;
            let pending = begin(&socket, endpoint)?;
            let stream = TcpStream::from_std(socket.into())?;
            if pending {
                stream.writable().await?;
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
            }
            Ok::<_, io::Error>(stream)
        };
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if is_out_of_descriptors(&error) => {
                Err(DialError::NoDescriptors { endpoint })
            }
            Ok(Err(source)) => Err(DialError::Unreachable { endpoint, source }),
            Err(_) => Err(DialError::TimedOut { endpoint, after: self.timeout }),
        }
    }

    /// A marked, non-blocking socket of the address's family with Nagle off, not yet connected.
    pub fn socket(&self, address: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }
}

/// Sends the SYN. False: the connection is there already, as it is when the workload lives on this
/// very host; nobody then has to wait for an event that says so.
fn begin(socket: &Socket, endpoint: Endpoint) -> io::Result<bool> {
    match socket.connect(&endpoint.0.into()) {
        Ok(()) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {
            Ok(socket.peer_addr().is_err())
        }
        Err(error) => Err(error),
    }
}

/// Cuts a connection so that the other end sees a reset and not a clean end of stream: a
/// truncated answer must never look whole.
pub fn reset(stream: TcpStream) {
    // A socket that is already gone cannot be reset; there is nothing left to tell anybody.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// EMFILE and ENFILE: the process or the machine has no descriptor left.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| matches!(Errno::from_raw(code), Errno::EMFILE | Errno::ENFILE))
}
