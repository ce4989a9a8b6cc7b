//! The program under measurement as a process of its own: started, waited for until its ops port calls it
//! ready, looked at, ended. Called by `issuance` and `admission`.
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

use crate::compare::cpu;

/// A CA over a damaged or enormous state; its target is five seconds.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// How exactly readiness is known.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) struct Process {
    child: Child,
    /// From its start until it said that it is ready.
    pub(crate) ready_after: Duration,
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    /// Without pages of files.
    pub(crate) anonymous: f64,
    pub(crate) peak: f64,
}

impl Process {
    /// Starts it, on one CPU if it is to have that for itself, and waits until `ready` at its ops port
    /// answers with 200. What it says goes to `log`.
    pub(crate) async fn start(
        mut command: Command,
        only: Option<usize>,
        log: &Path,
        (ops, ready): (SocketAddr, &str),
    ) -> Result<Self> {
        let said = File::create(log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let begin = Instant::now();
        let child = match only {
            Some(only) => cpu::on_cpu(only, || command.spawn())?,
            None => command.spawn(),
        };
        let program = Path::new(command.get_program()).display().to_string();
        let child = child.with_context(|| format!("cannot start {program}"))?;
        let mut process = Self { child, ready_after: Duration::ZERO };
        while !is_ready(ops, ready) {
            let ended = process.child.try_wait()?;
            let said = || fs::read_to_string(log).unwrap_or_default();
            ensure!(ended.is_none(), "{program} ended at its start: {}", said());
            ensure!(begin.elapsed() < READY_WITHIN, "{program} is not ready: {}", said());
            sleep(LOOK_EVERY).await;
        }
        process.ready_after = begin.elapsed();
        Ok(process)
    }

    /// User and system time so far, all threads.
    pub(crate) fn cpu(&self) -> f64 {
        cpu::process_s(self.pid().as_raw())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("no {name} in the process's /proc status"))
        };
        Ok(Memory { resident: kib("VmRSS:")?, anonymous: kib("RssAnon:")?, peak: kib("VmHWM:")? })
    }

    /// Ends it with this signal, and waits until it has ended.
    pub(crate) async fn end(mut self, signal: Signal) -> Result<()> {
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

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that was named, or the one of this name beside us.
pub(crate) fn program(named: Option<&PathBuf>, name: &str, flag: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    let program = named.cloned().unwrap_or(beside);
    let what = program.display();
    ensure!(
        program.exists(),
        "{what} is not there: cargo build --release -p {name}, or name one with {flag}"
    );
    Ok(program)
}

pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn is_ready(ops: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut tcp = TcpStream::connect(ops)?;
        write!(tcp, "GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
