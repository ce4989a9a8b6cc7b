//! The TCP port for those who look after us: `/live`, `/ready`, `/metrics`, read only. Called by
//! `app`; reached by the kubelet and by Prometheus.
//!
//! Never: a method other than GET and HEAD, a request body, or anything that changes us.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use crate::door::{self, Answer};
use crate::metrics::Metrics;

/// Connections served at once: a kubelet and a few scrapers, with room.
const MAX_CONNECTIONS: usize = 64;

/// One thing that readiness needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub name: &'static str,
    pub met: bool,
    /// One line; empty if there is nothing to say.
    pub why: String,
}

/// What readiness needs. Implemented by `app`.
pub trait Health: Send + Sync + 'static {
    fn conditions(&self) -> Vec<Condition>;
}

/// Serves until dropped.
pub async fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    metrics: Arc<Metrics>,
) -> Infallible {
    let serve = |stream| {
        let (health, metrics) = (Arc::clone(&health), Arc::clone(&metrics));
        async move {
            door::http(stream, |request| {
                let (method, path) = (request.method(), request.uri().path());
                std::future::ready(answer(method, path, &*health, &metrics))
            })
            .await;
        }
    };
    door::each(listener, MAX_CONNECTIONS, serve).await
}

fn answer(method: &Method, path: &str, health: &dyn Health, metrics: &Metrics) -> Answer {
    const JSON: &str = "application/json";
    if !["/live", "/ready", "/metrics"].contains(&path) {
        let pages = json!({ "error": "no such page; there are /live, /ready and /metrics" });
        return door::answer(StatusCode::NOT_FOUND, JSON, format!("{pages}\n"));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let allowed = json!({ "error": "this page answers only to GET, HEAD" });
        return door::answer(StatusCode::METHOD_NOT_ALLOWED, JSON, format!("{allowed}\n"));
    }
    let conditions = health.conditions();
    let ready = conditions.iter().all(|condition| condition.met);
    metrics.ready(ready);
    match path {
        "/metrics" => door::answer(StatusCode::OK, "text/plain; version=0.0.4", metrics.render()),
        "/live" => door::answer(StatusCode::OK, JSON, "{\"live\":true}\n"),
        _ => {
            let shown = conditions.iter().map(|Condition { name, met, why }| match why.as_str() {
                "" => json!({ "name": name, "met": met }),
                why => json!({ "name": name, "met": met, "why": why }),
            });
            let shown = json!({ "ready": ready, "conditions": shown.collect::<Vec<_>>() });
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            door::answer(status, JSON, format!("{shown}\n"))
        }
    }
}
