//! The TCP port: `/live`, `/ready`, `/metrics`, read only. Called by `app`; reached by the kubelet,
//! by Prometheus and, since it shares the network namespace, by the workload.
//!
//! Never: a method other than GET and HEAD, a request body, or anything that changes the sidecar.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::http::{self, Answer};
use super::port::{Bounds, Port};
use super::{AdminError, Condition, Health};
use crate::addr::ListenAddr;

/// Connections served at once: a kubelet and a few scrapers, with room. More wait in the backlog.
const MAX_CONNECTIONS: usize = 64;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bound port. Bound before it is served, so that a taken port is an error at the start.
pub struct OpsPort {
    port: Port,
}

impl OpsPort {
    /// Must be called within the runtime that will serve it.
    pub fn bind(address: ListenAddr) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Ops { address: address.0, source };
        Port::bind(address).map(|port| Self { port }).map_err(failed)
    }

    /// On what somebody has bound.
    pub fn of(listener: TcpListener) -> Self {
        Self { port: Port::of(listener) }
    }

    pub fn local_address(&self) -> io::Result<ListenAddr> {
        self.port.local_address()
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, health: Arc<dyn Health>) -> Infallible {
        let bounds = Bounds {
            connections: MAX_CONNECTIONS,
            head: http::HEAD_TIMEOUT,
            whole: http::CONNECTION_TIMEOUT,
        };
        let answer = move |request: Request<Incoming>, _| {
            std::future::ready(answer(request.method(), request.uri().path(), &*health))
        };
        self.port.serve(bounds, answer).await
    }
}

fn answer(method: &Method, path: &str, health: &dyn Health) -> Answer {
    let page: fn(&dyn Health) -> Answer = match path {
        "/live" => live,
        "/ready" => ready,
        "/metrics" => |health| http::text(StatusCode::OK, METRICS_TYPE, health.metrics()),
        _ => return http::not_found("/live, /ready and /metrics"),
    };
    // Asked only after the method is known to be harmless.
    if matches!(*method, Method::GET | Method::HEAD) {
        page(health)
    } else {
        http::wrong_method("GET, HEAD")
    }
}

fn live(health: &dyn Health) -> Answer {
    let live = health.is_live();
    http::json(status(live), &json!({ "live": live }))
}

fn ready(health: &dyn Health) -> Answer {
    let conditions = health.conditions();
    let ready = conditions.iter().all(|condition| condition.met);
    let shown: Vec<_> = conditions
        .iter()
        .map(|condition| {
            let Condition { name, met, why } = condition;
            match why.as_str() {
                "" => json!({ "name": name, "met": met }),
                why => json!({ "name": name, "met": met, "why": why }),
            }
        })
        .collect();
    http::json(status(ready), &json!({ "ready": ready, "conditions": shown }))
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
