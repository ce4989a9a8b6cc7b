//! A TCP port and how many may be inside: bound before it is served, so that a taken port is an error
//! at the start. Called by `ops` and `webhook`.
//!
//! Never: decides what is answered; waits for a stranger without an end.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub type Answer = Response<Full<Bytes>>;

/// Connections that wait to be served.
const BACKLOG: i32 = 256;

/// Pause after a failed accept (too many open files): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request's head comes in one segment; a client that needs longer is no API server.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whole life of a connection, however many requests it carries: the API server dials again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Heads of the API server, the kubelet and Prometheus are under 2 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {what}: {source}: choose another address, or stop what holds it"
)]
pub struct DoorError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Binds. `[::]` serves both families, or IPv4 alone where the kernel has no IPv6.
pub fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, DoorError> {
    let listen = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    let bound = listen(address).or_else(|why| match why.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(why),
        _ if any_v6 => listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))),
        _ => Err(why),
    });
    bound.map_err(|source| DoorError { what, address, source })
}

/// Hands each connection to `serve`, so many at once; more wait in the backlog. Until dropped.
pub async fn each<F, S>(listener: TcpListener, most: usize, serve: F) -> Infallible
where
    F: Fn(TcpStream) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let serving = serve(stream);
        tokio::spawn(async move {
            serving.await;
            drop(permit);
        });
    }
}

/// HTTP/1.1 on one connection.
pub async fn http<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A broken connection is the other side's business; it dials again.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

pub fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
