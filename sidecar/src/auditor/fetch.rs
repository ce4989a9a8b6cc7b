//! One resource of a log over HTTP, bounded in time and size. Called by `auditor`.
//!
//! Never: believes a byte of it (hashes and signatures say what it is worth); resolves a name;
//! follows a redirect.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use myelin_identity::log::{LogKey, MAX_NOTE_BYTES, Resource, TILE_WIDTH};

use crate::addr::Endpoint;
use crate::net::{DialError, Dialer};

/// A question and its answer of 8 KiB: seconds of patience for a busy CA.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A full tile.
const MAX_TILE_BYTES: usize = 32 * TILE_WIDTH as usize;

/// Why a resource is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the log's server cannot be reached: {0}")]
    Dial(#[from] DialError),
    #[error("the log's server at {0} did not answer within {ANSWER_WITHIN:?}")]
    Silent(Endpoint),
    #[error("HTTP with the log's server at {at} failed: {why}")]
    Http { at: Endpoint, why: String },
    #[error("the log's server at {at} answered {status} for {path}")]
    Status { at: Endpoint, status: StatusCode, path: String },
}

/// Where logs are served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) dialer: Dialer,
    pub(super) endpoint: Endpoint,
}

impl Server {
    pub(super) async fn get(
        &self,
        log: &LogKey,
        resource: Resource,
    ) -> Result<Vec<u8>, FetchError> {
        let most = match resource {
            Resource::Checkpoint => MAX_NOTE_BYTES,
            _ => MAX_TILE_BYTES,
        };
        let path = path_of(log, resource);
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.ask(&path, most)).await;
        answer.unwrap_or(Err(FetchError::Silent(self.endpoint)))
    }

    async fn ask(&self, path: &str, most: usize) -> Result<Vec<u8>, FetchError> {
        let at = self.endpoint;
        let broken = |why: &dyn std::fmt::Display| FetchError::Http { at, why: why.to_string() };
        let tcp = self.dialer.dial(at).await?;
        let opened = http1::handshake(TokioIo::new(tcp)).await;
        let (mut requests, connection) = opened.map_err(|why| broken(&why))?;
        let request = Request::get(path)
            .header(header::HOST, at.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|why| broken(&why))?;
        let answer = async {
            let response = requests.send_request(request).await.map_err(|why| broken(&why))?;
            let status = response.status();
            if status != StatusCode::OK {
                return Err(FetchError::Status { at, status, path: path.to_owned() });
            }
            let body = Limited::new(response.into_body(), most).collect().await;
            Ok(body.map_err(|why| broken(&why))?.to_bytes().to_vec())
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection ends only after its last answer, unless it breaks.
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(why) => Err(broken(&why)),
            },
        }
    }
}

/// Where the CA serves a resource of one of its logs: its own and the root's have a place each.
fn path_of(log: &LogKey, resource: Resource) -> String {
    let place = if log.name().contains("/root-log/") { "root-log" } else { "log" };
    format!("/{place}/{resource}")
}
