//! The HTTP/1.1 of both servers: one bounded request per connection, small answers from memory.
//! Called by `port` and `socket`.
//!
//! Never: keep-alive, upgrades, more than one request in flight on a connection, or a request body
//! that nobody asked for.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

pub type Answer = Response<Full<Bytes>>;

/// A request's head comes in one segment; a client that needs longer than this is no operator and
/// no kubelet.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whole life of a connection. Prometheus gives up on a scrape after 10 s by default, and a list
/// of connections is written within that too.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The least that hyper takes: heads of kubelet, curl and Prometheus are under 1 KiB.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Prometheus sends seven.
const MAX_HEADERS: usize = 32;

/// Pause after a failed accept (too many open files): long enough not to spin, short enough for a
/// probe's timeout of one second.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one request and closes: its head within the first of the times, all of it within the
/// second.
pub(super) async fn serve_one<S, F, A>(stream: S, (head, whole): (Duration, Duration), answer: F)
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
        .header_read_timeout(head)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(whole, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(%why, "an admin or ops connection ended early"),
        Err(_) => tracing::debug!("an admin or ops connection took too long and was closed"),
    }
}

/// A status and nothing else.
pub fn bare(status: StatusCode) -> Answer {
    answer(status, "text/plain", String::new())
}

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", format!("{value}\n"))
}

pub(super) fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    answer(status, content_type, body)
}

pub(super) fn error(status: StatusCode, line: &str) -> Answer {
    json(status, &json!({ "error": line }))
}

pub(super) fn not_found(pages: &str) -> Answer {
    error(StatusCode::NOT_FOUND, &format!("no such page; there are {pages}"))
}

pub(super) fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer =
        error(StatusCode::METHOD_NOT_ALLOWED, &format!("this page answers only to {allowed}"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
