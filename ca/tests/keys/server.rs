//! The CA as a process with flags and environment of the test's choice, and its command line.
//!
//! Never: sleeps; it reads the log until the line is there.

// SPDX-License-Identifier: Apache-2.0

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::JoinToken;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_myelin-ca");

/// A CA in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) grpc: SocketAddr,
    pub(crate) ops: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// `myelin-ca serve` on ephemeral ports, with these flags besides.
pub(crate) fn serve(data: &Path, flags: &[String]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"]).arg(data);
    command.args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]).args(flags);
    command
}

impl Server {
    /// Starts and waits until it serves.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let (grpc, ops) = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("ended before it served: {seen}")).unwrap();
            seen.push_str(&line);
            seen.push('\n');
            let json: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {seen}"));
            if json["message"] == "serving" {
                let address = |field: &str| json[field].as_str().unwrap().parse().unwrap();
                break (address("grpc"), address("ops"));
            }
        };
        let log = Arc::new(Mutex::new(seen));
        let keeps = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = keeps.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, grpc, ops, log }
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn target(&self, data: &Path) -> Target {
        let pem = stdout(&cli(data, &["bundle", "show"]));
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        let bundle = TrustBundle::from_pem(domain, 1, &pem).unwrap();
        let clock = clock(&Arc::new(AtomicU64::new(0)));
        Target { grpc: self.grpc, bundle: Arc::new(bundle), clock }
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut tcp = TcpStream::connect(self.ops).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(tcp, "GET {path} HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        tcp.read_to_string(&mut response).unwrap();
        response
    }

    /// Stops as an operator would.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn cli(data: &Path, args: &[&str]) -> Output {
    Command::new(BINARY).args(args).arg("--data").arg(data).output().unwrap()
}

#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The last line that a start with a mistake says, and its exit code.
#[track_caller]
pub(crate) fn mistake(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

pub(crate) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

pub(crate) fn create_token(data: &Path, address: &str) -> JoinToken {
    let args = ["token", "create", "--id", WEB, "--address", address];
    stdout(&cli(data, &args)).trim().parse().unwrap()
}
