//! Talking to the sidecar: an operator's Unix socket, and a TCP port that only tells whether it
//! lives, whether it is ready, and its metrics. Called by `app`, on the admin runtime.
//!
//! Never: a TCP endpoint that changes anything or shows configuration, certificates or
//! connections; a caller on the socket whose user the kernel has not told us; a secret in an
//! answer.

// SPDX-License-Identifier: Apache-2.0

mod http;
mod ops;
mod port;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use serde_json::Value;

use crate::unix_socket::SocketError;

pub use self::http::{Answer, bare};
pub use self::ops::OpsPort;
pub use self::port::{Bounds, Port, listen};
pub use self::socket::{AdminSocket, AllowedUids};

/// An answer that may have to be collected from other cores.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the operator's socket shows and changes. Implemented by `app`.
pub trait View: Send + Sync + 'static {
    fn config(&self) -> Value;
    fn certs(&self) -> Value;
    fn connections(&self) -> Answering<'_, Value>;
    fn log_level(&self) -> String;
    /// The error is one line for the operator.
    fn set_log_level(&self, wanted: &str) -> Result<(), String>;
    /// Reads the configuration file again. The error is one line for the operator.
    fn reload(&self) -> Answering<'_, Result<(), String>>;
}

/// What the TCP port shows. A trait of its own, so that no mistake can serve a `View` there.
pub trait Health: Send + Sync + 'static {
    fn is_live(&self) -> bool;
    /// Ready means that every condition is met.
    fn conditions(&self) -> Vec<Condition>;
    /// The registry in the Prometheus text format.
    fn metrics(&self) -> String;
}

/// One thing that readiness needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub name: &'static str,
    pub met: bool,
    /// One reason word or line; empty if there is nothing to say.
    pub why: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "cannot listen on {address} for /live, /ready and /metrics: {source}: choose another `listen.ops`, or stop what holds it"
    )]
    Ops { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Socket(#[from] SocketError),
}
