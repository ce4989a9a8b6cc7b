//! Both servers over real sockets: what they answer, and to whom they do not.
//!
//! Never: leaves the machine.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::addr::ListenAddr;

struct Fake {
    level: Mutex<String>,
    reloads: AtomicU32,
    ready: bool,
}

impl Fake {
    fn new(ready: bool) -> Arc<Self> {
        Arc::new(Self { level: Mutex::new("info".to_owned()), reloads: AtomicU32::new(0), ready })
    }
}

impl View for Fake {
    fn config(&self) -> Value {
        json!({ "trust_domain": "td.example" })
    }
    fn certs(&self) -> Value {
        json!([])
    }
    fn connections(&self) -> Answering<'_, Value> {
        Box::pin(async { json!({ "open": 3 }) })
    }
    fn log_level(&self) -> String {
        self.level.lock().unwrap().clone()
    }
    fn set_log_level(&self, wanted: &str) -> Result<(), String> {
        if wanted != "debug" {
            return Err(format!("no such level: {wanted}"));
        }
        wanted.clone_into(&mut self.level.lock().unwrap());
        Ok(())
    }
    fn reload(&self) -> Answering<'_, Result<(), String>> {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
}

impl Health for Fake {
    fn is_live(&self) -> bool {
        true
    }
    fn conditions(&self) -> Vec<Condition> {
        vec![
            Condition { name: "listeners", met: true, why: String::new() },
            Condition { name: "svid", met: self.ready, why: "identity_pending".to_owned() },
        ]
    }
    fn metrics(&self) -> String {
        "# TYPE up gauge\nup 1\n".to_owned()
    }
}

async fn exchange(mut stream: impl AsyncReadExt + AsyncWrite + Unpin, request: &str) -> String {
    // The server may refuse and close before it has read anything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}

async fn ops(ready: bool) -> (ListenAddr, Arc<Fake>) {
    let fake = Fake::new(ready);
    let port = OpsPort::bind(ListenAddr("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = port.local_address().unwrap();
    tokio::spawn(port.serve(Arc::clone(&fake) as Arc<dyn Health>));
    (address, fake)
}

async fn ask_ops(address: ListenAddr, method: &str, path: &str) -> String {
    let stream = TcpStream::connect(address.0).await.unwrap();
    exchange(stream, &request(method, path, "")).await
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

fn serve_socket(path: &Path, configured: &[u32]) -> Arc<Fake> {
    let fake = Fake::new(true);
    let allowed = AllowedUids::with_own(configured.iter().copied());
    let socket = AdminSocket::bind(path, allowed).unwrap();
    tokio::spawn(socket.serve(Arc::clone(&fake) as Arc<dyn View>));
    fake
}

async fn ask(path: &Path, method: &str, page: &str, body: &str) -> String {
    let stream = UnixStream::connect(path).await.unwrap();
    exchange(stream, &request(method, page, body)).await
}

#[tokio::test]
async fn ops_answers_three_pages_and_nothing_else() {
    let (address, _) = ops(true).await;
    for (method, path, status) in [
        ("GET", "/live", "200"),
        ("GET", "/ready", "200"),
        ("GET", "/metrics", "200"),
        ("HEAD", "/ready", "200"),
        ("GET", "/", "404"),
        ("GET", "/config", "404"),
        ("GET", "/certs", "404"),
        ("GET", "/connections", "404"),
        ("GET", "/metrics/", "404"),
        ("GET", "//metrics", "404"),
        ("POST", "/metrics", "405"),
        ("PUT", "/log-level", "404"),
        ("POST", "/reload", "404"),
        ("DELETE", "/live", "405"),
        ("OPTIONS", "/live", "405"),
    ] {
        let answer = ask_ops(address, method, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
    }
    assert!(ask_ops(address, "GET", "/metrics").await.ends_with("up 1\n"));
    assert!(ask_ops(address, "HEAD", "/metrics").await.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_tricked_workload_cannot_shut_the_sidecar_down() {
    let (address, fake) = ops(true).await;
    for path in ["/shutdown", "/quitquitquit", "/reload", "/live?shutdown", "/../shutdown"] {
        let answer = ask_ops(address, "POST", path).await;
        let refused = ["HTTP/1.1 404 ", "HTTP/1.1 405 "];
        assert!(refused.iter().any(|start| answer.starts_with(start)), "{path}: {answer}");
    }
    assert_eq!(fake.reloads.load(Ordering::Relaxed), 0);
    assert!(ask_ops(address, "GET", "/live").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_unready_sidecar_says_why_in_one_line() {
    let (address, _) = ops(false).await;
    let answer = ask_ops(address, "GET", "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body.lines().count(), 1);
    let shown: Value = serde_json::from_str(body).unwrap();
    assert_eq!(shown["conditions"][1]["why"], "identity_pending");
    assert_eq!(shown["conditions"][0], json!({ "name": "listeners", "met": true }));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed() {
    let (address, _) = ops(true).await;
    let mut stream = TcpStream::connect(address.0).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let (address, _) = ops(true).await;
    let stream = TcpStream::connect(address.0).await.unwrap();
    let head = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    assert!(!exchange(stream, &head).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn ops_on_every_address_serves_both_families() {
    let port = OpsPort::bind(ListenAddr("[::]:0".parse().unwrap())).unwrap();
    let number = port.local_address().unwrap().port();
    tokio::spawn(port.serve(Fake::new(true)));
    let v4 = ListenAddr(format!("127.0.0.1:{number}").parse().unwrap());
    assert!(ask_ops(v4, "GET", "/live").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_taken_ops_port_is_one_line() {
    let (address, _) = ops(true).await;
    let error = OpsPort::bind(address).err().unwrap().to_string();
    assert!(error.contains("listen.ops") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn the_socket_shows_and_changes_what_it_should() {
    let directory = directory();
    let path = directory.path().join("admin.sock");
    let fake = serve_socket(&path, &[]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for (method, page, body, status, shown) in [
        ("GET", "/config", "", "200", "td.example"),
        ("GET", "/certs", "", "200", "[]"),
        ("GET", "/connections", "", "200", "{\"open\":3}"),
        ("GET", "/log-level", "", "200", "info"),
        ("PUT", "/log-level", "verbose", "422", "no such level: verbose"),
        ("PUT", "/log-level", "a\u{7}b", "400", "expected a log level"),
        ("PUT", "/log-level", "", "400", "expected a log level"),
        ("PUT", "/log-level", "debug\n", "200", "done"),
        ("GET", "/log-level", "", "200", "debug"),
        ("POST", "/reload", "", "200", "done"),
        ("GET", "/reload", "", "405", "POST"),
        ("POST", "/config", "", "405", "GET"),
        ("POST", "/shutdown", "", "404", "no such page"),
    ] {
        let answer = ask(&path, method, page, body).await;
        let fits = answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(shown);
        assert!(fits, "{method} {page} {body:?}: {answer}");
    }
    assert_eq!(fake.reloads.load(Ordering::Relaxed), 1);
    let long = ask(&path, "PUT", "/log-level", &"d".repeat(MAX_PLUS_ONE)).await;
    assert!(long.starts_with("HTTP/1.1 413 "), "{long}");
}

const MAX_PLUS_ONE: usize = 257;

#[test]
fn only_root_the_own_user_and_configured_users_may_enter() {
    let allowed = AllowedUids::new(1337, [2000]);
    for (uid, enters) in [(0, true), (1337, true), (2000, true), (2001, false), (65_534, false)] {
        assert_eq!(allowed.may_enter(uid), enters, "{uid}");
    }
    assert!(!AllowedUids::new(1337, []).may_enter(1000));
}

/// The status that `curl` gets as another user; the file mode lets everybody in, so that only the
/// credential check can refuse.
fn curl_as(uid: u32, path: &Path) -> String {
    let output = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "http://x/config", "--unix-socket"])
        .arg(path)
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn another_user_is_refused_by_its_credentials() {
    let curl = Command::new("curl").arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !curl {
        let required = std::env::var_os("MYELIN_REQUIRE_NETNS").is_some();
        assert!(!required, "this test needs root and curl, and is required here");
        return;
    }
    let directory = directory();
    let path = directory.path().join("admin.sock");
    serve_socket(&path, &[12_345]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let statuses =
        tokio::task::spawn_blocking(move || [0, 12_345, 65_534].map(|uid| curl_as(uid, &path)));
    assert_eq!(statuses.await.unwrap(), ["200", "200", "403"]);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let directory = directory();
    let path = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    serve_socket(&path, &[]);
    assert!(ask(&path, "GET", "/config", "").await.starts_with("HTTP/1.1 200 "));
    let taken = AdminSocket::bind(&path, AllowedUids::with_own([])).err().unwrap();
    assert!(matches!(taken, AdminError::Socket(SocketError::SocketTaken { .. })), "{taken}");
    assert!(ask(&path, "GET", "/config", "").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_socket_file_goes_with_its_server_and_a_successors_stays() {
    let directory = directory();
    let path = directory.path().join("admin.sock");
    let first = AdminSocket::bind(&path, AllowedUids::with_own([])).unwrap();
    fs::remove_file(&path).unwrap();
    let second = AdminSocket::bind(&path, AllowedUids::with_own([])).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn files_links_and_open_directories_are_refused() {
    let directory = directory();
    let bind = |path: &Path| {
        let error = AdminSocket::bind(path, AllowedUids::with_own([])).err().unwrap();
        assert!(!error.to_string().contains('\n'), "{error}");
        error
    };
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(bind(&file), AdminError::Socket(SocketError::NoSocket { .. })));
    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    assert!(matches!(bind(&link), AdminError::Socket(SocketError::NoSocket { .. })));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(matches!(
        bind(&file.join("admin.sock")),
        AdminError::Socket(SocketError::Directory { .. })
    ));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    let open = bind(&directory.path().join("admin.sock"));
    assert!(
        matches!(open, AdminError::Socket(SocketError::DirectoryOpen { mode: 0o1777, .. })),
        "{open}"
    );
}
