//! Our own bundle endpoint for other trust domains: HTTPS, one document, to read only. Off unless
//! `--federation-listen` names a port.
//!
//! Never: asks a caller who it is (the bundle is public), serves anything else, or keeps a
//! connection for a second request.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Stopping, accept};
use crate::authority::Authority;
use crate::metrics::Metrics;

/// Other domains' CAs, each for a moment every few minutes; strangers wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
/// Two round trips across the world, and a slow machine.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A request head comes in one segment.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// One request and its answer after the handshake.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// Heads are under 1 KiB; this is the least that hyper takes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// What the endpoint serves, and as whom.
#[derive(Clone)]
pub struct Endpoint {
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
    /// Swapped as certificates are renewed.
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// How soon readers are asked to come again.
    pub refresh_hint: Duration,
}

/// Answers until the process is to end.
pub async fn serve(listener: TcpListener, endpoint: Endpoint, stopping: Stopping) {
    let answer = |(tcp, _)| {
        let endpoint = endpoint.clone();
        async move { endpoint.answer(tcp).await }
    };
    accept::each(|cx| listener.poll_accept(cx), MAX_CONNECTIONS, stopping, answer).await;
}

impl Endpoint {
    async fn answer(self, tcp: TcpStream) {
        let acceptor = TlsAcceptor::from(self.tls.load_full());
        let Ok(Ok(tls)) = timeout(HANDSHAKE_DEADLINE, acceptor.accept(tcp)).await else {
            self.metrics.federation.requests.with_label_values(&["handshake"]).inc();
            return;
        };
        let service = service_fn(move |request| {
            let response = self.respond(&request);
            let status = response.status();
            self.metrics.federation.requests.with_label_values(&[status.as_str()]).inc();
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .max_buf_size(MAX_HEAD_BYTES)
            .keep_alive(false)
            .serve_connection(TokioIo::new(tls), service);
        // A broken connection is the reader's business.
        let _ = timeout(CONNECTION_DEADLINE, connection).await;
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refused = "only GET and HEAD are answered here\n";
            let mut refused = typed(StatusCode::METHOD_NOT_ALLOWED, "text/plain", refused);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => {
                let hint = self.refresh_hint.as_secs();
                let document = self.authority.bundle().to_spiffe_json_hinting(hint);
                typed(StatusCode::OK, "application/json", document)
            }
            _ => typed(StatusCode::NOT_FOUND, "text/plain", "not here; the bundle is at /\n"),
        }
    }
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
