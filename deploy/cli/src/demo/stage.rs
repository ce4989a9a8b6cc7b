//! Everything that the demo makes: pods, processes, one temporary directory. The story acts on it.
//! Never: outlives the demo; dropping it kills every process and removes every file.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::{Ground, Lab, Pod, Proc, addresses};
use nix::unistd::{Gid, Uid, chown};
use tempfile::TempDir;

use super::binaries::Binaries;
use super::prometheus::Prometheus;
use crate::play::{READY, Tally};

/// Any process of the demo starts within this, also on a busy machine.
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);

/// Lines of each process that a failed demo repeats.
const QUOTED_LINES: usize = 6;

/// The pods, processes and files. Fields drop from the top: processes first, files last.
pub(super) struct Stage {
    pub(super) prometheus: Option<Prometheus>,
    pub(super) loads: Vec<Load>,
    pub(super) services: Vec<Proc>,
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) ca: Option<Proc>,
    pub(super) pods: Pods,
    pub(super) lab: Lab,
    pub(super) ground: Ground,
    pub(super) binaries: Binaries,
    /// Makes this run's canaries unlike any other's.
    pub(super) run: String,
    dir: TempDir,
}

pub(super) struct Pods {
    pub(super) client: Pod,
    pub(super) server: Pod,
    pub(super) ca: Pod,
    /// Somebody on the wire, without a sidecar.
    pub(super) stranger: Pod,
}

/// One sidecar: in which pod, and where an operator reaches it.
pub(super) struct Sidecar {
    pub(super) name: &'static str,
    pub(super) admin: PathBuf,
    pub(super) proc: Proc,
}

/// Clients of one service: how they are started, and the process once they are.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) what: String,
    pub(super) canary: String,
    /// Arguments of `myelin play`.
    pub(super) args: Vec<String>,
    pub(super) proc: Option<Proc>,
}

impl Stage {
    pub(super) fn new(ground: Ground, binaries: Binaries) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("myelin-demo-").tempdir().context(
            "cannot make a temporary directory; set TMPDIR to a place that can be written",
        )?;
        // The sidecars run as another user and must reach their own folders in it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))
            .context("cannot open the temporary directory to the sidecars")?;
        let lab = Lab::new()?;
        let pods = Pods {
            client: lab.pod("client", &addresses(1))?,
            server: lab.pod("server", &addresses(2))?,
            ca: lab.pod("ca", &addresses(3))?,
            stranger: lab.pod("stranger", &addresses(4))?,
        };
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .context("cannot draw a run number")?;
        let run = uuid.chars().take(8).collect();
        let (loads, services, sidecars) = (Vec::new(), Vec::new(), Vec::new());
        let stage = Self {
            prometheus: None,
            loads,
            services,
            sidecars,
            ca: None,
            pods,
            lab,
            ground,
            binaries,
            run,
            dir,
        };
        stage.make_dir("logs", None)?;
        Ok(stage)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder of the temporary directory that only its owner may enter.
    pub(super) fn make_dir(&self, name: &str, owner: Option<u32>) -> Result<PathBuf> {
        let path = self.path(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        self.give(&path, owner)?;
        Ok(path)
    }

    pub(super) fn give(&self, path: &Path, owner: Option<u32>) -> Result<()> {
        let Some(uid) = owner else { return Ok(()) };
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))
            .with_context(|| format!("cannot give {} to uid {uid}", path.display()))
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(format!("{name}.log"))
    }

    /// Starts the demo's own two services in the server pod.
    pub(super) async fn start_own_services(&mut self) -> Result<()> {
        let (v4, v6) = (self.pods.server.v4(), self.pods.server.v6());
        let (web, greeter) = (self.canary("http"), self.canary("greeter"));
        self.serve("web", 8080, &web).await?;
        self.serve("greeter", 7070, &greeter).await?;
        self.own_load("http", "HTTP/1.1, our own, over IPv4", "web-clients", v4, 8080, web);
        let what = "server speaks first, our own, over IPv6";
        self.own_load("greeter", what, "greeter-clients", v6, 7070, greeter);
        Ok(())
    }

    pub(super) fn canary(&self, of: &str) -> String {
        format!("canary-{of}-{}", self.run)
    }

    /// Sends one request of each kind and waits for the right answers.
    pub(super) async fn ask_once(&self) -> Result<()> {
        for load in &self.loads {
            let once = self.clients(load).arg("--once");
            let once = finish_args(once, load).spawn()?;
            once.wait_success(START_LIMIT)
                .await
                .with_context(|| format!("{} does not answer", load.name))?;
        }
        Ok(())
    }

    pub(super) fn start_loads(&mut self) -> Result<()> {
        for at in 0..self.loads.len() {
            let load = &self.loads[at];
            let proc = finish_args(self.clients(load), load).spawn()?;
            self.loads[at].proc = Some(proc);
        }
        Ok(())
    }

    /// Repeats the last lines of whatever may be to blame, and takes the logs out of the temporary
    /// directory, which goes with the stage.
    pub(super) fn keep_logs(&mut self) {
        // Nobody may be left to read this; the demo cleans up nevertheless.
        let say = |text: String| writeln!(std::io::stderr(), "{text}").ok();
        let sidecars = self.sidecars.iter().map(|sidecar| &sidecar.proc);
        let loads = self.loads.iter().filter_map(|load| load.proc.as_ref());
        let others = self.services.iter().chain(loads).filter(|proc| !proc.is_running());
        for proc in self.ca.iter().chain(sidecars).chain(others) {
            let lines = proc.lines();
            for line in &lines[lines.len().saturating_sub(QUOTED_LINES)..] {
                say(format!("{}: {}", proc.label(), line.text));
            }
        }
        let kept = std::env::temp_dir().join(format!("myelin-demo-logs-{}", self.run));
        match fs::rename(self.path("logs"), &kept) {
            Ok(()) => say(format!("the logs of all processes are in {}", kept.display())),
            Err(error) => say(format!("the logs could not be kept: {error}")),
        };
    }

    async fn serve(&mut self, role: &str, port: u16, canary: &str) -> Result<()> {
        let service = self
            .pods
            .server
            .command(&self.binaries.own)
            .args(["play", role, "--listen", &format!("[::]:{port}"), "--canary", canary])
            .label(format!("server/{role}"))
            .tee(self.log(role))
            .spawn()?;
        service.wait_line(READY, START_LIMIT).await?;
        self.services.push(service);
        Ok(())
    }

    fn own_load(
        &mut self,
        name: &'static str,
        what: &str,
        role: &str,
        ip: IpAddr,
        port: u16,
        canary: String,
    ) {
        let to = std::net::SocketAddr::new(ip, port).to_string();
        let args = [role, "--to", &to, "--canary", &canary].map(str::to_owned).to_vec();
        self.loads.push(Load { name, what: what.to_owned(), canary, args, proc: None });
    }

    fn clients(&self, load: &Load) -> myelin_lab::Command {
        self.pods
            .client
            .command(&self.binaries.own)
            .args(["play", &load.args[0]])
            .label(format!("client/{}", load.name))
            .tee(self.log(&format!("{}-clients", load.name)))
    }
}

fn finish_args(command: myelin_lab::Command, load: &Load) -> myelin_lab::Command {
    command.args(&load.args[1..])
}

impl Load {
    /// What its clients counted so far. A process that has ended counts as one more failure.
    pub(super) fn tally(&self) -> Tally {
        let Some(proc) = &self.proc else { return Tally::default() };
        let lines = proc.lines();
        let told =
            lines.iter().rev().find_map(|line| serde_json::from_str::<Tally>(&line.text).ok());
        let mut tally = told.unwrap_or_default();
        if !proc.is_running() {
            tally.failed += 1;
            tally.why = Some(format!("the clients ended: {}", proc.last_words()));
        }
        tally
    }
}
