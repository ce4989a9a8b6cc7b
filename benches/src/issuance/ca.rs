//! The CA under measurement: the real program as a process of its own. Called by every measurement.
//!
//! Never: outlives its holder.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::args::Options;
use crate::compare::cpu;

/// A start over a damaged or enormous state; the target is five seconds.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// How exactly readiness is known.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) const TRUST_DOMAIN: &str = "bench.test";

pub(super) struct Ca {
    child: Child,
    pub(super) grpc: SocketAddr,
    ops: SocketAddr,
    /// From the start of the process until `/readyz` said so.
    pub(super) ready_after: Duration,
}

/// Memory of the process in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    pub(super) resident: f64,
    /// Without pages of files.
    pub(super) anonymous: f64,
    pub(super) peak: f64,
}

impl Ca {
    /// Starts it on this data directory, and waits until it is ready.
    pub(super) async fn start(options: &Options, data: &Path) -> Result<Self> {
        Self::start_on(None, options, data).await
    }

    /// The same on one CPU, which it then has for itself if the callers keep off.
    pub(super) async fn start_on(
        only: Option<usize>,
        options: &Options,
        data: &Path,
    ) -> Result<Self> {
        let (grpc, ops) = (free_port()?, free_port()?);
        let program = program(options)?;
        let log = File::create(data.with_extension("log"))?;
        let begin = Instant::now();
        let mut command = Command::new(&program);
        command
            .args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"])
            .arg(data)
            .args(["--listen", &grpc.to_string(), "--ops-listen", &ops.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = match only {
            Some(only) => cpu::on_cpu(only, || command.spawn())?,
            None => command.spawn(),
        };
        let child = child.with_context(|| format!("cannot start {}", program.display()))?;
        let mut ca = Self { child, grpc, ops, ready_after: Duration::ZERO };
        while !ca.is_ready() {
            let ended = ca.child.try_wait()?;
            let said = || fs::read_to_string(data.with_extension("log")).unwrap_or_default();
            ensure!(ended.is_none(), "the CA ended at its start: {}", said());
            ensure!(begin.elapsed() < READY_WITHIN, "the CA is not ready: {}", said());
            sleep(LOOK_EVERY).await;
        }
        ca.ready_after = begin.elapsed();
        Ok(ca)
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut tcp = TcpStream::connect(self.ops)?;
            tcp.write_all(b"GET /readyz HTTP/1.1\r\nhost: ca\r\nconnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            tcp.read_to_end(&mut answer)?;
            Ok(answer.starts_with(b"HTTP/1.1 200"))
        };
        ask().unwrap_or(false)
    }

    /// User and system time so far, all threads.
    pub(super) fn cpu(&self) -> f64 {
        cpu::process_s(self.pid().as_raw())
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("no {name} in the CA's /proc status"))
        };
        Ok(Memory { resident: kib("VmRSS:")?, anonymous: kib("RssAnon:")?, peak: kib("VmHWM:")? })
    }

    /// Ends it as an operator would.
    pub(super) async fn stop(self) -> Result<()> {
        self.end(Signal::SIGTERM).await
    }

    /// Ends it without a word (SIGKILL).
    pub(super) async fn cut(self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    async fn end(mut self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal)?;
        while self.child.try_wait()?.is_none() {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default())
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(options: &Options) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("myelin-ca");
    let program = options.ca.clone().unwrap_or(beside);
    let what = program.display();
    ensure!(
        program.exists(),
        "{what} is not there: cargo build --release -p myelin-ca, or name one with --ca"
    );
    Ok(program)
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
