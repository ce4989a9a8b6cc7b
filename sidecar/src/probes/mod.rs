//! The workload's own probes, run for the kubelet, which has no SVID and so cannot ask a strict port
//! itself: `/probe/<container>/<liveness|readiness|startup>` runs exactly the probe that the
//! configuration holds under that name, against the address that the kubelet dialled, and answers
//! with its status. Called by `app`; `config` reads `[[probe]]`.
//!
//! Never: a request that configuration does not hold, another address than our own that was
//! dialled, a body or a header of the workload's in an answer.

// SPDX-License-Identifier: Apache-2.0

mod blind;
mod grpc;
mod http;
mod redirect;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::addr::ListenAddr;
use crate::admin::{Bounds, Port, bare};
use crate::metrics::Metrics;

/// Probes of one pod: three kinds of more containers than any pod has.
pub const MAX_PROBES: usize = 128;

/// Headers of one HTTP probe; the kubelet has no bound, people write one or two.
pub const MAX_HEADERS: usize = 32;

/// The longest that a probe may take. The kubelet has no bound; one that takes longer than this
/// tells nobody in time.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Probes at once, and whoever else finds the port: more than any kubelet asks of one pod. Others
/// wait in the backlog.
const MAX_CONNECTIONS: usize = 256;

/// The kubelet sends a request's head at once; silent connections must not hold its place.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the paths begin.
const PREFIX: &str = "/probe/";

/// One probe of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub container: String,
    pub kind: Kind,
    pub timeout: Duration,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

/// What the kubelet would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Http(HttpProbe),
    /// A connection, and nothing else.
    Tcp {
        port: u16,
    },
    /// `grpc.health.v1.Health/Check`, in the clear.
    Grpc {
        port: u16,
        service: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    pub port: u16,
    /// TLS 1.3, whoever answers: the kubelet does not verify either.
    pub https: bool,
    pub target: PathAndQuery,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "cannot listen on {address} for the workload's probes: {source}: choose another \
         `listen.probes`, or stop what holds it"
    )]
    Listen { address: SocketAddr, source: io::Error },
}

/// How a probe that was run ended, as metrics and the kubelet are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The workload's own HTTP status.
    Status(StatusCode),
    /// TCP: connected; gRPC: serving.
    Passed,
    /// gRPC: anything but serving.
    Failed,
    /// Nobody there, or what came was no answer.
    Unreachable,
    TimedOut,
}

/// The connection below a request; it ends with the probe, however that ends.
struct Driver(JoinHandle<()>);

/// The bound port with its probes.
pub struct ProbePort {
    port: Port,
    probes: HashMap<(String, Kind), Probe>,
    metrics: Arc<Metrics>,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Liveness, Self::Readiness, Self::Startup];

    pub fn word(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Startup => "startup",
        }
    }
}

impl Probe {
    /// As the operator's socket shows it.
    pub fn show(&self) -> Value {
        let mut shown = json!({
            "container": self.container,
            "kind": self.kind.word(),
            "timeout": humantime::format_duration(self.timeout).to_string(),
        });
        let action = match &self.action {
            Action::Http(http) => json!({
                "action": "http",
                "port": http.port,
                "scheme": if http.https { "https" } else { "http" },
                "path": http.target.as_str(),
                // Values may be credentials.
                "headers": http.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            }),
            Action::Tcp { port } => json!({ "action": "tcp", "port": port }),
            Action::Grpc { port, service } => {
                json!({ "action": "grpc", "port": port, "service": service })
            }
        };
        if let (Some(shown), Value::Object(action)) = (shown.as_object_mut(), action) {
            shown.extend(action);
        }
        shown
    }
}

impl ProbePort {
    /// Must be called within the runtime that will serve it.
    pub fn bind(
        address: ListenAddr,
        probes: Vec<Probe>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ProbeError> {
        let failed = |source| ProbeError::Listen { address: address.0, source };
        let port = Port::bind(address).map_err(failed)?;
        let by_name = |probe: Probe| ((probe.container.clone(), probe.kind), probe);
        Ok(Self { port, probes: probes.into_iter().map(by_name).collect(), metrics })
    }

    pub fn local_address(&self) -> io::Result<ListenAddr> {
        self.port.local_address()
    }

    /// Serves until the future is dropped.
    pub async fn serve(self) -> Infallible {
        let longest = self.probes.values().map(|probe| probe.timeout).max().unwrap_or_default();
        let bounds = Bounds {
            connections: MAX_CONNECTIONS,
            head: HEAD_TIMEOUT,
            whole: longest + HEAD_TIMEOUT,
        };
        let (probes, metrics) = (Arc::new(self.probes), self.metrics);
        let answer = move |request: Request<Incoming>, dialled: SocketAddr| {
            let (probes, metrics) = (Arc::clone(&probes), Arc::clone(&metrics));
            async move {
                bare(match asked(&request, &probes) {
                    Ok(probe) => answer(probe, dialled, &metrics).await,
                    Err(refused) => refused,
                })
            }
        };
        self.port.serve(bounds, answer).await
    }
}

impl Driver {
    fn of<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            // What it fails with, the request fails with too.
            let _ = connection.await;
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Which probe a request is about.
fn asked<'p, B>(
    request: &Request<B>,
    probes: &'p HashMap<(String, Kind), Probe>,
) -> Result<&'p Probe, StatusCode> {
    // The kubelet's HTTP probe is a GET.
    if *request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let named = || {
        let (container, word) = request.uri().path().strip_prefix(PREFIX)?.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word)?;
        probes.get(&(container.to_owned(), kind))
    };
    named().ok_or(StatusCode::NOT_FOUND)
}

async fn answer(probe: &Probe, dialled: SocketAddr, metrics: &Metrics) -> StatusCode {
    let ran = tokio::time::timeout(probe.timeout, run(&probe.action, dialled));
    let verdict = ran.await.unwrap_or(Verdict::TimedOut);
    metrics.probe(probe.kind.word(), verdict.word());
    tracing::debug!(
        container = probe.container,
        kind = probe.kind.word(),
        outcome = verdict.word(),
        "a probe was run"
    );
    verdict.status()
}

/// On the address of ours that the kubelet dialled: there it would have asked, and a workload that
/// listens elsewhere only would have failed it.
async fn run(action: &Action, dialled: SocketAddr) -> Verdict {
    let at = |port| SocketAddr::new(dialled.ip().to_canonical(), port);
    match action {
        Action::Http(http) => http::run(http, at(http.port).ip()).await,
        Action::Tcp { port } => match TcpStream::connect(at(*port)).await {
            Ok(_) => Verdict::Passed,
            Err(_) => Verdict::Unreachable,
        },
        Action::Grpc { port, service } => grpc::run(at(*port), service).await,
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            // What the kubelet takes as success.
            Self::Status(status) if (200..400).contains(&status.as_u16()) => "passed",
            Self::Passed => "passed",
            Self::Status(_) | Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Status(status) => status,
            Self::Passed => StatusCode::OK,
            Self::Failed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
