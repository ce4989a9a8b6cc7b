//! The operator's Unix socket: who may enter is decided by what the kernel says about the caller,
//! not by file modes alone. Called by `app`; mounted only where operators reach.
//!
//! Never: answers a caller before its user is checked, replaces a socket on which somebody answers,
//! removes a file that is not a dead socket.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use nix::unistd::geteuid;
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::http::{self, Answer};
use super::{AdminError, View};

/// Operators at once: a shell, a dashboard, an `explain`. More wait in the backlog.
const MAX_CONNECTIONS: usize = 16;

/// A log level and its targets fit on one line.
const MAX_BODY_BYTES: usize = 256;

/// Refused callers that are told so at once, and for how long each may keep us.
const MAX_REFUSALS: usize = 4;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A refused caller is logged at most this often, so that it cannot flood the log.
const REFUSAL_LOG_PAUSE: Duration = Duration::from_secs(10);

/// Group and others may not write where the socket lives.
const WRITABLE_BY_OTHERS: u32 = 0o022;

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
    listener: UnixListener,
    allowed: AllowedUids,
    path: PathBuf,
    /// Device and inode of our own file, so that no successor's is removed.
    file: (u64, u64),
}

impl AdminSocket {
    /// Checks the directory (made with mode 0755 if it is missing), replaces a dead socket and
    /// binds. Must be called within the runtime that will serve it.
    pub fn bind(path: &Path, allowed: AllowedUids) -> Result<Self, AdminError> {
        let own = geteuid().as_raw();
        check_directory(path, own)?;
        remove_dead_socket(path)?;
        let failed = |source| AdminError::Socket { path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Between these two calls the umask decides who connects; the credential check below
        // guards every connection anyway.
        fs::set_permissions(path, Permissions::from_mode(allowed.file_mode(own)))
            .map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Self { listener, allowed, path: path.to_owned(), file })
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, view: Arc<dyn View>) -> Infallible {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let mut last_refusal: Option<Instant> = None;
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
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
                http::serve_one(stream, |request| answer(request, uid, &*view)).await;
                drop(permit);
            });
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours {
            // A file that stays behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
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

fn check_directory(socket: &Path, own: u32) -> Result<(), AdminError> {
    let path = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let failed = |source| AdminError::Directory { path: path.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(failed)?;
    let metadata = fs::metadata(&path).map_err(failed)?;
    let (seen, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if seen != 0 && seen != own {
        return Err(AdminError::DirectoryOwner { path, seen, own });
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(AdminError::DirectoryOpen { path, mode });
    }
    Ok(())
}

fn remove_dead_socket(path: &Path) -> Result<(), AdminError> {
    let failed = |source| AdminError::Socket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(AdminError::NoSocket { path: path.to_owned() }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(failed(why)),
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full backlog must not hold us: it counts as an answer.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(why) if why.kind() != io::ErrorKind::WouldBlock => Err(failed(why)),
        _ => Err(AdminError::SocketTaken { path: path.to_owned() }),
    }
}
