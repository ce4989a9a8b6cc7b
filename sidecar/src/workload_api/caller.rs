//! Who is at the other end of the socket: the kernel's word for it, before a byte is read. Called
//! by `workload_api::serve`; the services ask the `Caller` of each request.
//!
//! Never: believes what a caller says of itself, or lets those who may not enter take the places of
//! those who may.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::authority::Authority;
use super::seldom::Seldom;

/// Processes of one workload that hold a connection: a client library has one. More wait in the
/// kernel's backlog.
const MAX_CONNECTIONS: usize = 64;
/// Callers of other users that are told so at once, and for how long each may keep us.
const MAX_REFUSALS: usize = 4;
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);
/// Pause after a failed accept (too many open files): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accepted connections that wait for the server to take them; it takes them at once.
const HANDOVER: usize = 4;

/// Users and groups that may have the workload's SVID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub uids: BTreeSet<u32>,
    /// The primary group of the process; supplementary ones are not told to us.
    pub gids: BTreeSet<u32>,
}

impl Allowed {
    pub(super) fn admits(&self, uid: u32, gid: u32) -> bool {
        self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

/// The process at the other end, as the kernel named it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: Option<i32>,
    pub(super) admitted: bool,
}

impl Caller {
    /// The caller of a request, if it may have an answer.
    pub(super) fn admitted<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().copied();
        let caller = caller.ok_or_else(|| Status::internal("the caller is not known"))?;
        if caller.admitted {
            return Ok(caller);
        }
        Err(Status::permission_denied(format!(
            "user {} of group {} may not have this workload's SVID; the sidecar's \
             `workload_api.allowed_uids` and `allowed_gids` name those who may",
            caller.uid, caller.gid
        )))
    }
}

type Accepted = Result<Connection, io::Error>;

/// The accepting side.
pub(super) struct Callers {
    allowed: Allowed,
    sender: mpsc::Sender<Accepted>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    refused: Seldom,
}

impl Callers {
    pub(super) fn new(allowed: Allowed) -> (Self, mpsc::Receiver<Accepted>) {
        let (sender, accepted) = mpsc::channel(HANDOVER);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        (Self { allowed, sender, places, refusals, refused: Seldom::default() }, accepted)
    }

    pub(super) async fn accept(self, listener: &UnixListener) -> Infallible {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.expect("this semaphore is never closed");
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Some(caller) = self.identify(&stream) else { continue };
            let connection = if caller.admitted {
                Connection::new(stream, caller, place)
            } else {
                self.note_refusal(caller);
                // Beyond the bound they are cut without a word, and hold no workload's place.
                let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() else { continue };
                Connection::new(stream, caller, place)
            };
            // The server lives as long as this loop.
            let _ = self.sender.send(Ok(connection)).await;
        }
    }

    /// Whom the kernel does not name does not enter.
    fn identify(&self, stream: &UnixStream) -> Option<Caller> {
        let told = stream.peer_cred().ok()?;
        let (uid, gid, pid) = (told.uid(), told.gid(), told.pid());
        Some(Caller { uid, gid, pid, admitted: self.allowed.admits(uid, gid) })
    }

    fn note_refusal(&self, caller: Caller) {
        if let Some(left_out) = self.refused.now(caller.uid) {
            tracing::warn!(
                uid = caller.uid,
                gid = caller.gid,
                pid = caller.pid,
                left_out,
                "workload API: refused a user; `workload_api.allowed_uids` and `allowed_gids` name \
                 those who may"
            );
        }
    }
}

/// One connection with its place; a refused one has a deadline as well.
pub(super) struct Connection {
    stream: UnixStream,
    authority: Authority,
    caller: Caller,
    deadline: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: UnixStream, caller: Caller, place: OwnedSemaphorePermit) -> Self {
        let refused = !caller.admitted;
        let deadline = refused.then(|| Box::pin(tokio::time::sleep(REFUSAL_DEADLINE)));
        Self { stream, authority: Authority::default(), caller, deadline, _place: place }
    }

    /// Asked before every step: a caller that reads nothing would hold us in a write.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.authority.mend(&mut buf.filled_mut()[before..]);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn a_user_or_a_group_that_is_named_is_admitted_and_nobody_else() {
        let allowed = Allowed { uids: [1000].into(), gids: [2000].into() };
        for (uid, gid, expected) in
            [(1000, 1, true), (1, 2000, true), (2000, 1000, false), (0, 0, false)]
        {
            assert_eq!(allowed.admits(uid, gid), expected, "{uid} {gid}");
        }
        assert!(!Allowed::default().admits(0, 0), "not even root");
    }

    /// Writes more than a socket takes to somebody who reads nothing.
    async fn talk_to_the_deaf(admitted: bool) -> io::Result<()> {
        let (ours, _theirs) = UnixStream::pair()?;
        let caller = Caller { uid: 7, gid: 8, pid: None, admitted };
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let mut connection = Connection::new(ours, caller, place);
        let patience = REFUSAL_DEADLINE * 10;
        let written = tokio::time::timeout(patience, connection.write_all(&[0; 8 << 20])).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_caller_that_reads_nothing_is_parted_with_in_time() {
        let refused = talk_to_the_deaf(false).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        // The twin may take its time.
        let admitted = talk_to_the_deaf(true).await.unwrap_err();
        assert_eq!(admitted.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_request_without_a_known_caller_is_refused() {
        let mut request = Request::new(());
        assert!(Caller::admitted(&request).is_err());
        let caller = Caller { uid: 7, gid: 8, pid: None, admitted: false };
        request.extensions_mut().insert(caller);
        let refused = Caller::admitted(&request).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        request.extensions_mut().insert(Caller { admitted: true, ..caller });
        assert!(Caller::admitted(&request).is_ok());
    }
}
