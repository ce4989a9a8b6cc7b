//! The real binary: command line, operator's door, ops port, permissions, signals, and `kill -9` in
//! the middle of issues (T45).
//!
//! Never: sleeps for luck; it polls with a bound.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use harness::*;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::JoinToken;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_myelin-ca");

/// A CA in a process of its own.
struct Process {
    child: Child,
    grpc: SocketAddr,
    ops: SocketAddr,
}

impl Process {
    /// Starts and waits for the line that names the ports.
    fn start(data: &Path) -> Self {
        let mut child = Command::new(BINARY)
            .args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"])
            .arg(data)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let (grpc, ops) = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("ended before it served: {seen}")).unwrap();
            seen.push_str(&line);
            let json: serde_json::Value = serde_json::from_str(&line).unwrap();
            if json["message"] == "serving" {
                let address = |field: &str| json[field].as_str().unwrap().parse().unwrap();
                break (address("grpc"), address("ops"));
            }
        };
        // Somebody must go on reading, or the child blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, grpc, ops }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn target(&self, data: &Path) -> Target {
        let pem = stdout(&cli(data, &["bundle", "show"]));
        let bundle =
            TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN).unwrap(), 1, &pem).unwrap();
        Target {
            grpc: self.grpc,
            bundle: Arc::new(bundle),
            clock: clock(&Arc::new(AtomicU64::new(0))),
        }
    }

    fn http(&self, request: &str) -> String {
        let mut tcp = TcpStream::connect(self.ops).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(tcp, "{request} HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        tcp.read_to_string(&mut response).unwrap();
        response
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cli(data: &Path, args: &[&str]) -> Output {
    Command::new(BINARY).args(args).arg("--data").arg(data).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a mistake gives.
#[track_caller]
fn mistake(output: &Output) -> String {
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

fn create_token(data: &Path, address: &str) -> JoinToken {
    let args = ["token", "create", "--id", WEB, "--address", address];
    stdout(&cli(data, &args)).trim().parse().unwrap()
}

#[tokio::test]
async fn token_is_made_with_and_without_a_running_server() {
    let (_directory, data) = scratch();
    let refused = mistake(&cli(&data, &["token", "list"]));
    assert!(refused.contains("data"), "{refused}");
    let server = Process::start(&data);
    let online = create_token(&data, "10.0.0.1");
    server.signal(Signal::SIGTERM);
    drop(server);
    let offline = create_token(&data, "10.0.0.2");
    let server = Process::start(&data);
    let target = server.target(&data);
    for token in [&online, &offline] {
        assert_eq!(token.bundle_hash, target.bundle.hash());
        issue(&target, &Host::new(), By::Token(token), &Intent::new()).await.unwrap();
    }
    let listed = stdout(&cli(&data, &["token", "list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed.as_array().unwrap().iter().filter(|token| token["state"] == "used").count(),
        2
    );
    assert_eq!(stdout(&cli(&data, &["svid", "list"])).lines().count(), 2);
    assert!(stdout(&cli(&data, &["bundle", "show", "--json"])).contains("spiffe_sequence"));
    let reserved =
        ["token", "create", "--id", "spiffe://prod.example/myelin/ca", "--address", "10.0.0.3"];
    assert!(mistake(&cli(&data, &reserved)).contains("reserved"));
}

#[test]
fn ops_port_answers_get_and_head_only() {
    let (_directory, data) = scratch();
    let server = Process::start(&data);
    let table = [
        ("GET /livez", "200 OK"),
        ("GET /readyz", "200 OK"),
        ("HEAD /readyz", "200 OK"),
        ("GET /metrics", "200 OK"),
        ("GET /bundle.pem", "200 OK"),
        ("GET /bundle.json", "200 OK"),
        ("GET /other", "404 Not Found"),
        ("POST /readyz", "405 Method Not Allowed"),
        ("DELETE /metrics", "405 Method Not Allowed"),
    ];
    for (request, expected) in table {
        let response = server.http(request);
        assert!(response.starts_with(&format!("HTTP/1.1 {expected}")), "{request}: {response}");
    }
    let metrics = server.http("GET /metrics");
    for name in ["myelin_ca_signer_not_after_seconds", "myelin_ca_live_svids 0", "process_open_fds"]
    {
        assert!(metrics.contains(name), "{name}");
    }
}

#[test]
fn wrong_permissions_flags_and_ports_are_one_line_each() {
    let (_directory, data) = scratch();
    drop(Process::start(&data));
    let serve = |extra: &[&str]| {
        let mut args = vec![
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--log-level",
            "off",
        ];
        args.extend(extra);
        mistake(&cli(&data, &args))
    };
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    assert!(
        serve(&["--trust-domain", "other.example"])
            .contains("belongs to trust domain prod.example")
    );
    assert!(serve(&["--trust-domain", "Prod.Example"]).contains("--trust-domain"));
    for (path, wide, right, fix) in [
        (data.clone(), 0o755, 0o700, "chmod 0700"),
        (data.join("store.redb"), 0o644, 0o600, "chmod 0600"),
        (data.join("seal.key"), 0o640, 0o600, "chmod 0600"),
    ] {
        chmod(&path, wide);
        assert!(serve(&["--trust-domain", TRUST_DOMAIN]).contains(fix), "{fix}");
        chmod(&path, right);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let line = mistake(&cli(
        &data,
        &["serve", "--trust-domain", TRUST_DOMAIN, "--listen", &taken, "--log-level", "off"],
    ));
    assert!(line.contains("--listen"), "{line}");
    let running = Process::start(&data);
    assert!(serve(&["--trust-domain", TRUST_DOMAIN]).contains("another process"));
    drop(running);
    std::fs::rename(data.join("seal.key"), data.join("elsewhere")).unwrap();
    assert!(serve(&["--trust-domain", TRUST_DOMAIN]).contains("seal key"));
}

#[tokio::test]
async fn sigterm_ends_the_process_with_success_even_with_an_open_watch() {
    let (_directory, data) = scratch();
    let mut server = Process::start(&data);
    let target = server.target(&data);
    let token = create_token(&data, "10.0.0.1");
    let held = issue(&target, &Host::new(), By::Token(&token), &Intent::new()).await.unwrap();
    let mut connected = target.connect(Some(&held)).await;
    let (_open, acks) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(acks);
    let mut updates = connected.client.watch_bundle(stream).await.unwrap().into_inner();
    updates.message().await.unwrap();
    server.signal(Signal::SIGTERM);
    let watching = tokio::spawn(async move { while let Ok(Some(_)) = updates.message().await {} });
    let status = tokio::task::spawn_blocking(move || server.child.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    watching.await.unwrap();
}

/// Ten times: issue as fast as possible, SIGKILL at some point of it, start again.
#[tokio::test(flavor = "multi_thread")]
async fn kill_in_the_middle_of_issues_repeats_no_serial_and_loses_no_certificate() {
    let (_directory, data) = scratch();
    let mut known: HashSet<String> = HashSet::new();
    for round in 0..10_u64 {
        let server = Process::start(&data);
        let target = server.target(&data);
        // What was handed out before is still known after the restart.
        let live = stdout(&cli(&data, &["svid", "list", "--json"]));
        let live: Vec<myelin_ca::operator::SvidLine> = serde_json::from_str(&live).unwrap();
        let live: HashSet<String> = live.into_iter().map(|line| line.serial).collect();
        assert!(
            known.is_subset(&live),
            "round {round}: a certificate was handed out but is not in the journal"
        );
        let tokens: Vec<JoinToken> =
            (0..6).map(|index| create_token(&data, &format!("10.0.{round}.{index}"))).collect();
        let pid = Pid::from_raw(i32::try_from(server.child.id()).unwrap());
        let (sender, mut serials) = tokio::sync::mpsc::unbounded_channel();
        let callers: Vec<_> = tokens
            .into_iter()
            .map(|token| {
                let (target, sender) = (target.clone(), sender.clone());
                tokio::spawn(async move {
                    let verifier =
                        Arc::new(myelin_identity::verify::CaVerifier::new(target.bundle.clone()));
                    let Ok(mut connected) = target.try_connect(verifier, None).await else {
                        return;
                    };
                    let (host, intent) = (Host::new(), Intent::new());
                    let request = request(&connected, &host, &By::Token(&token), &intent);
                    if let Ok(held) = send(&mut connected, request, &intent).await {
                        let _ = sender.send(held.serial());
                    }
                })
            })
            .collect();
        drop(sender);
        // The kill falls behind as many answers as the round has number: it hits another moment
        // each time.
        let mut answered = 0;
        while answered < round % 5 {
            let Some(serial) = serials.recv().await else {
                break;
            };
            assert!(known.insert(serial), "a serial came twice");
            answered += 1;
        }
        kill(pid, Signal::SIGKILL).unwrap();
        for caller in callers {
            caller.await.unwrap();
        }
        while let Some(serial) = serials.recv().await {
            assert!(known.insert(serial), "a serial came twice");
        }
        drop(server);
    }
    assert!(known.len() >= 10, "too few certificates to say anything: {}", known.len());
    // Log and journal agree, whatever the kills came between (T45).
    let found = stdout(&cli(&data, &["log", "verify", "--json"]));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["damages"].as_array().map(Vec::len), Some(0), "{found}");
    let logged = found["certificates"].as_u64().unwrap();
    assert!(logged >= known.len() as u64, "{} were handed out: {found}", known.len());
}

#[test]
fn every_command_has_help() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["token", "create", "--help"],
        &["token", "list", "--help"],
        &["bundle", "show", "--help"],
        &["svid", "list", "--help"],
    ] {
        let output = Command::new(BINARY).args(args).output().unwrap();
        let text = stdout(&output);
        assert!(text.contains("Usage:") && text.len() > 200, "{args:?}: {text}");
    }
}

/// `myelin-ca ... | head`, and a disk that is full.
#[test]
fn a_reader_that_has_enough_is_no_mistake_and_an_answer_without_room_is() {
    let (_directory, data) = scratch();
    let _process = Process::start(&data);
    let answer_into = |into: Stdio| {
        let mut command = Command::new(BINARY);
        command.args(["rotate", "status", "--data"]).arg(&data).stdout(into);
        command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let enough = answer_into(writer.into());
    assert_eq!(String::from_utf8_lossy(&enough.stderr), "");
    assert!(enough.status.success());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let line = mistake(&answer_into(full.into()));
    assert!(line.contains("cannot write the answer"), "{line}");
}
