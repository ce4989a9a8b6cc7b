//! The ops port: liveness, readiness, metrics and the bundle, over plain HTTP/1, to read only.
//!
//! Never: changes anything, or serves what is not public.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Stopping, accept};
use crate::authority::Authority;
use crate::metrics::Metrics;

mod logs;

/// Probes and scrapers: a handful each.
const MAX_CONNECTIONS: usize = 64;
/// A request head that takes longer is no probe.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Longest life of a connection, however many requests it carries: scrapers reconnect.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);

/// Why the CA is not ready, or that it is. `app` keeps it true.
pub type Readiness = watch::Receiver<Result<(), String>>;

/// What the port shows.
#[derive(Clone)]
pub struct Ops {
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// Answers until the process is to end.
pub async fn serve(listener: TcpListener, ops: Ops, stopping: Stopping) {
    let answer = |(tcp, _)| {
        let ops = ops.clone();
        async move {
            let service = service_fn(move |request| {
                let ops = ops.clone();
                async move { Ok::<_, Infallible>(ops.respond(&request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .serve_connection(TokioIo::new(tcp), service);
            // A broken connection is the prober's business.
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, connection).await;
        }
    };
    accept::each(|cx| listener.poll_accept(cx), MAX_CONNECTIONS, stopping, answer).await;
}

/// Answers for a CA that cannot issue yet: alive, and not ready for this reason.
pub async fn serve_waiting(listener: TcpListener, why: &'static str, stopping: Stopping) {
    let answer = |(tcp, _)| async move {
        let service = service_fn(move |request: Request<Incoming>| async move {
            Ok::<_, Infallible>(match request.uri().path() {
                "/livez" => text(StatusCode::OK, "ok\n"),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, format!("this CA {why}\n")),
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .keep_alive(false)
            .serve_connection(TokioIo::new(tcp), service);
        let _ = tokio::time::timeout(CONNECTION_DEADLINE, connection).await;
    };
    accept::each(|cx| listener.poll_accept(cx), MAX_CONNECTIONS, stopping, answer).await;
}

impl Ops {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match &*self.readiness.borrow() {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" => {
                self.refresh();
                typed(StatusCode::OK, "text/plain; version=0.0.4", self.metrics.text())
            }
            "/bundle.pem" => {
                typed(StatusCode::OK, "application/x-pem-file", self.authority.bundle().to_pem())
            }
            "/bundle.json" => {
                typed(StatusCode::OK, "application/json", self.authority.bundle().to_spiffe_json())
            }
            path => match logs::answer(self.authority.logs(), path).await {
                Some(response) => response,
                None => text(
                    StatusCode::NOT_FOUND,
                    "not here; there are /livez /readyz /metrics /bundle.pem /bundle.json \
                     /log/checkpoint /root-log/checkpoint\n",
                ),
            },
        }
    }

    /// Gauges that follow the authority's state.
    fn refresh(&self) {
        let (metrics, authority) = (&self.metrics, &self.authority);
        let bounded = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.live_svids.set(bounded(authority.live().count(authority.clock().seconds()) as u64));
        metrics.signer_not_after.set(authority.signer_not_after() as f64);
        metrics.bundle_generation.set(bounded(authority.bundle().generation()));
        metrics.deny_epoch.set(bounded(authority.deny_epoch()));
        let step = authority.step();
        metrics.ladder.rung.set(step.step.rung as i64);
        metrics.ladder.trust_record.set(bounded(step.step.number));
        metrics.ladder.root_not_after.set(authority.root_not_after() as f64);
        let (intermediate, root) = authority.alarms();
        for (issuer, late) in [("intermediate", intermediate), ("root", root)] {
            metrics.ladder.late.with_label_values(&[issuer]).set(late.unwrap_or(0).into());
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
