//! The operator's Unix socket: who may enter is decided by what the kernel says about the caller,
//! not by file modes alone. Called by `app`; mounted only where operators reach.
//!
//! Never: answers a caller before its user is checked.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use nix::unistd::geteuid;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::http::{self, Answer};
use super::{AdminError, View};
use crate::unix_socket::BoundSocket;

/// What configuration calls the socket's path.
const KEY: &str = "listen.admin";

/// Operators at once: a shell, a dashboard, an `explain`. More wait in the backlog.
const MAX_CONNECTIONS: usize = 16;

/// A log level and its targets fit on one line.
const MAX_BODY_BYTES: usize = 256;

/// Refused callers that are told so at once, and for how long each may keep us.
const MAX_REFUSALS: usize = 4;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A refused caller is logged at most this often, so that it cannot flood the log.
const REFUSAL_LOG_PAUSE: Duration = Duration::from_secs(10);

const PAGES: &str = "GET /config, /certs, /connections, /log-level; PUT /log-level; POST /reload";

/// Users who may enter: root, the sidecar's own, and those that the operator names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedUids(BTreeSet<u32>);

impl AllowedUids {
    pub fn new(own: u32, configured: impl IntoIterator<Item = u32>) -> Self {
        Self([0, own].into_iter().chain(configured).collect())
    }

    /// With this process's own user.
    pub fn with_own(configured: impl IntoIterator<Item = u32>) -> Self {
        Self::new(geteuid().as_raw(), configured)
    }

    pub fn may_enter(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }

    /// The file mode lets in nobody but the owner, unless the operator named others: those pass
    /// the file system then, and the credential check decides alone.
    fn file_mode(&self, own: u32) -> u32 {
        if self.0.iter().all(|uid| *uid == 0 || *uid == own) { 0o600 } else { 0o666 }
    }
}

/// The bound socket; its file goes when it is dropped.
pub struct AdminSocket {
    socket: BoundSocket,
    allowed: AllowedUids,
}

impl AdminSocket {
    /// Checks the directory (made with mode 0755 if it is missing), replaces a dead socket and
    /// binds. Must be called within the runtime that will serve it.
    pub fn bind(path: &Path, allowed: AllowedUids) -> Result<Self, AdminError> {
        let mode = allowed.file_mode(geteuid().as_raw());
        Ok(Self { socket: BoundSocket::bind(path, KEY, mode)?, allowed })
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, view: Arc<dyn View>) -> Infallible {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let mut last_refusal: Option<Instant> = None;
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let Ok((stream, _)) = self.socket.listener.accept().await else {
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            };
            let uid = stream.peer_cred().map(|caller| caller.uid());
            let Some(uid) = uid.ok().filter(|uid| self.allowed.may_enter(*uid)) else {
                if last_refusal.is_none_or(|at| at.elapsed() >= REFUSAL_LOG_PAUSE) {
                    last_refusal = Some(Instant::now());
                    let uid = stream.peer_cred().map_or(-1, |caller| i64::from(caller.uid()));
                    tracing::warn!(
                        uid,
                        "admin socket: refused a user; `listen.admin_uids` names those who may"
                    );
                }
                // Beyond the bound they are cut without a word, and hold no operator's permit.
                if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                    tokio::spawn(async move {
                        refuse(stream).await;
                        drop(refusal);
                    });
                }
                continue;
            };
            let view = Arc::clone(&view);
            tokio::spawn(async move {
                let bounds = (http::HEAD_TIMEOUT, http::CONNECTION_TIMEOUT);
                http::serve_one(stream, bounds, |request| answer(request, uid, &*view)).await;
                drop(permit);
            });
        }
    }
}

/// One line, without a look at what the caller has to say. What it sends is drained for a moment,
/// so that it sees the answer rather than a broken connection.
async fn refuse(mut stream: UnixStream) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let told = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        stream.read(&mut [0; 1024]).await
    };
    // Whoever does not take it is refused all the same.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
}

async fn answer(request: Request<Incoming>, uid: u32, view: &dyn View) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (&method, path.as_str()) {
        (&Method::GET, "/config") => http::json(StatusCode::OK, &view.config()),
        (&Method::GET, "/certs") => http::json(StatusCode::OK, &view.certs()),
        (&Method::GET, "/connections") => http::json(StatusCode::OK, &view.connections().await),
        (&Method::GET, "/log-level") => {
            http::json(StatusCode::OK, &json!({ "log_level": view.log_level() }))
        }
        (&Method::PUT, "/log-level") => set_log_level(request, uid, view).await,
        (&Method::POST, "/reload") => {
            tracing::info!(uid, "admin socket: reload asked for");
            done(view.reload().await)
        }
        (_, "/config" | "/certs" | "/connections") => http::wrong_method("GET"),
        (_, "/log-level") => http::wrong_method("GET, PUT"),
        (_, "/reload") => http::wrong_method("POST"),
        _ => http::not_found(PAGES),
    }
}

async fn set_log_level(request: Request<Incoming>, uid: u32, view: &dyn View) -> Answer {
    let body = match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(why) if why.is::<http_body_util::LengthLimitError>() => {
            let line = format!("a log level takes at most {MAX_BODY_BYTES} bytes");
            return http::error(StatusCode::PAYLOAD_TOO_LARGE, &line);
        }
        Err(_) => return http::error(StatusCode::BAD_REQUEST, "the body broke off"),
    };
    let wanted = str::from_utf8(&body).unwrap_or_default().trim();
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_graphic()) {
        return http::error(StatusCode::BAD_REQUEST, "expected a log level such as `debug`");
    }
    tracing::info!(uid, wanted, "admin socket: log level asked for");
    done(view.set_log_level(wanted))
}

fn done(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => http::json(StatusCode::OK, &json!({ "done": true })),
        Err(line) => http::error(StatusCode::UNPROCESSABLE_ENTITY, &line),
    }
}
