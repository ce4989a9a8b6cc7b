//! A TCP port and how many may be inside: bound before it is served, so that a taken port is an error
//! at the start. Called by `app` and `webhook`.
//!
//! Never: decides what is answered; waits for a stranger without an end.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
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
use myelin_sidecar::addr::ListenAddr;
use myelin_sidecar::admin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub type Answer = Response<Full<Bytes>>;

/// Pause after a failed accept (too many open files): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request's head comes in one segment; a client that needs longer is no API server. An idle
/// connection is closed after as long: the API server dials again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whole life of a connection, however many requests it carries.
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

/// Bound before it is served, so that a taken port is an error at the start.
pub fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, DoorError> {
    admin::listen(ListenAddr(address)).map_err(|source| DoorError { what, address, source })
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
        // What TLS and HTTP say in small pieces would wait for acknowledgements that the other side puts
        // off by 40 ms. Without it all is as before, only later.
        let _ = stream.set_nodelay(true);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn accepted_connections_wait_for_no_acknowledgement() {
        let listener = bind("test", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut told) = mpsc::channel(1);
        let serving = tokio::spawn(each(listener, 1, move |stream| {
            let tell = tell.clone();
            async move { tell.send(stream.nodelay()).await.unwrap() }
        }));
        let _dialled = TcpStream::connect(address).await.unwrap();
        assert!(told.recv().await.unwrap().unwrap());
        serving.abort();
    }
}
