//! The TCP port: `/live`, `/ready`, `/metrics`, read only. Called by `app`; reached by the kubelet,
//! by Prometheus and, since it shares the network namespace, by the workload.
//!
//! Never: a method other than GET and HEAD, a request body, or anything that changes the sidecar.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::http::{self, Answer};
use super::{AdminError, Condition, Health};
use crate::addr::ListenAddr;

/// Connections served at once: a kubelet and a few scrapers, with room. More wait in the backlog.
const MAX_CONNECTIONS: usize = 64;

/// Connections that wait to be served.
const BACKLOG: i32 = 128;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bound port. Bound before it is served, so that a taken port is an error at the start.
pub struct OpsPort {
    listener: TcpListener,
}

impl OpsPort {
    /// Binds. `[::]` serves both families, or IPv4 alone where the kernel has no IPv6. Must be
    /// called within the runtime that will serve it.
    pub fn bind(address: ListenAddr) -> Result<Self, AdminError> {
        let bound = bind(address.0).or_else(|why| {
            let any_v6 = address.0.is_ipv6() && address.ip().is_unspecified();
            if any_v6 && no_ipv6(&why) {
                return bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
            }
            Err(why)
        });
        let listener = bound
            .and_then(TcpListener::from_std)
            .map_err(|source| AdminError::Ops { address: address.0, source })?;
        Ok(Self { listener })
    }

    pub fn local_address(&self) -> io::Result<ListenAddr> {
        self.listener.local_addr().map(ListenAddr)
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, health: Arc<dyn Health>) -> Infallible {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            };
            let health = Arc::clone(&health);
            tokio::spawn(async move {
                http::serve_one(stream, |request| {
                    let (method, path) = (request.method(), request.uri().path());
                    std::future::ready(answer(method, path, &*health))
                })
                .await;
                drop(permit);
            });
        }
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

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn no_ipv6(why: &io::Error) -> bool {
    use nix::errno::Errno;
    let known = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    known.iter().any(|errno| why.raw_os_error() == Some(*errno as i32))
}
