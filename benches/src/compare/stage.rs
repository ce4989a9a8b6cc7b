//! The pods of one visit, the server in them, and how parts are started on the right CPU. Called by
//! `visit` and `scale`.
//!
//! Never: outlives its visit; each peer gets new pods, so that nothing of one is left for the next.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use myelin_lab::{Command, Ground, Lab, Pod, Proc, Stream};
use serde::Serialize;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::cpu;
use super::load;
use super::record::{Job, Service, Window};
use super::serve::{self, MESSAGE};

pub(crate) const REQUESTS: u16 = 8080;
pub(crate) const BULK: u16 = 9000;

/// Anything starts within this, also on a busy machine.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(20);

/// Beyond its window a job opens connections before and waits for answers after.
const JOB_LIMIT: Duration = Duration::from_secs(180);

/// One attempt at a first answer. Short, because a proxy that could not reach the other one yet may
/// hold an attempt for as long as it waits itself (HAProxy: 1 s), and an answer takes milliseconds.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(100);

/// Between two attempts: the precision of the start times.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(1);

/// Share of the machine that others may take in a window, and how often one is measured at most.
const DISTURBED: f64 = 0.10;
const ATTEMPTS: usize = 3;

/// Ports that proxies listen on must not be taken for connections; and a client that opens
/// thousands of connections a second has to take its ports again.
const SETTINGS: [(&str, &str); 3] = [
    ("ip_local_port_range", "10240 65000"),
    ("ip_local_reserved_ports", "15000-15100,18080,19000,28080,29000"),
    ("tcp_tw_reuse", "1"),
];

/// Where something runs: the client's pod on CPU 0, the server's on CPU 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The pods and files of one visit. Fields drop from the top: processes first, files last.
pub(crate) struct Stage {
    app: Option<Proc>,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) lab: Lab,
    pub(crate) ground: Ground,
    own: PathBuf,
    jobs: AtomicUsize,
    dir: TempDir,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) fn cpu(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// `10.77.0.n` on the lab's wire.
pub(crate) fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, n).into()
}

impl Stage {
    /// Makes the pods; `server_addresses` are those of the server's pod.
    pub(crate) fn new(ground: Ground, server_addresses: &[IpAddr]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("myelin-compare-").tempdir()?;
        // Proxies run as another user and must get to their own files below.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let lab = Lab::new()?;
        let client = lab.pod("client", &[address(1)])?;
        let server = lab.pod("server", server_addresses)?;
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let jobs = AtomicUsize::new(0);
        let stage = Self { app: None, client, server, lab, ground, own, jobs, dir };
        stage.settle(&stage.client)?;
        stage.settle(&stage.server)?;
        Ok(stage)
    }

    /// Another pod for the server's side.
    pub(crate) fn pod(&self, name: &str, addresses: &[IpAddr]) -> Result<Pod> {
        let pod = self.lab.pod(name, addresses)?;
        self.settle(&pod)?;
        Ok(pod)
    }

    fn settle(&self, pod: &Pod) -> Result<()> {
        let set = |(name, value): &(&str, &str)| {
            fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
                .with_context(|| format!("cannot set net.ipv4.{name} in the pod {}", pod.name()))
        };
        pod.run(|| SETTINGS.iter().try_for_each(set))?
    }

    /// Starts the server in the server's pod.
    pub(crate) async fn serve(&mut self, request_ports: Vec<u16>) -> Result<()> {
        self.app = Some(self.serve_in(&self.server, request_ports).await?);
        Ok(())
    }

    /// Starts one more server, in another pod of the server's side.
    pub(crate) async fn serve_in(&self, pod: &Pod, request_ports: Vec<u16>) -> Result<Proc> {
        let job = self.job(&Service { bulk: BULK, request_ports })?;
        let app = pod.command(&self.own).args(["play", "serve"]).arg(job);
        let app = spawn(Side::Server, app)?;
        app.wait_line(serve::READY, START_LIMIT).await?;
        Ok(app)
    }

    pub(crate) fn app_pids(&self) -> Vec<i32> {
        self.app.as_ref().map(|app| cpu::tree(app.pid())).unwrap_or_default()
    }

    /// Runs one job of the generator in the client's pod. A window in which others took much of the
    /// machine is measured again, and the least disturbed one counts, whatever it gave.
    pub(crate) async fn load(&self, job: &Job) -> Result<Window> {
        let mut best = self.load_once(job).await?;
        for _ in 1..ATTEMPTS {
            if best.disturbance() <= DISTURBED {
                break;
            }
            let again = self.load_once(job).await?;
            if again.disturbance() < best.disturbance() {
                best = again;
            }
        }
        Ok(best)
    }

    async fn load_once(&self, job: &Job) -> Result<Window> {
        let generator = self.start_load(job)?;
        let limit = JOB_LIMIT + Duration::from_millis(job.warm_ms + job.window_ms);
        generator.wait_success(limit).await?;
        let said = generator.text(Stream::Out);
        serde_json::from_str(&said).with_context(|| format!("the generator said {said:?}"))
    }

    /// Opens connections and holds them until the process is dropped; says how many failed.
    pub(crate) async fn hold(&self, job: &Job) -> Result<(Proc, u64)> {
        let holder = self.start_load(job)?;
        let line = holder.wait_line(load::HELD, JOB_LIMIT).await?;
        let errors = line.split_whitespace().nth(1).and_then(|errors| errors.parse().ok());
        Ok((holder, errors.with_context(|| format!("the generator said {line:?}"))?))
    }

    fn start_load(&self, job: &Job) -> Result<Proc> {
        let job = self.job(job)?;
        spawn(Side::Client, self.client.command(&self.own).args(["play", "load"]).arg(job))
    }

    fn job(&self, job: &impl Serialize) -> Result<PathBuf> {
        let path = self.path(&format!("job-{}.json", self.jobs.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, serde_json::to_vec(job)?).context("cannot write a job")?;
        Ok(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory of this visit; `owned` ones belong to the proxies' user alone.
    pub(crate) fn make_dir(&self, name: &str, owned: bool) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        self.give(&path, owned, if owned { 0o700 } else { 0o755 })?;
        Ok(path)
    }

    /// A file of this visit, likewise.
    pub(crate) fn write(&self, name: &str, text: &str, owned: bool) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        self.give(&path, owned, if owned { 0o600 } else { 0o644 })?;
        Ok(path)
    }

    fn give(&self, path: &Path, owned: bool, mode: u32) -> Result<()> {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        if owned {
            let uid = self.ground.proxy_uid();
            chown(path, Some(uid), Some(uid))
                .with_context(|| format!("cannot chown {}", path.display()))?;
        }
        Ok(())
    }

    /// Asks from the client's pod until an answer comes, and says when it came.
    pub(crate) async fn first_answer(&self, to: SocketAddr, procs: &[Proc]) -> Result<Instant> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let last = match timeout(ATTEMPT_LIMIT, self.ask(to)).await {
                Ok(Ok(())) => return Ok(Instant::now()),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            let words = || {
                let all: Vec<String> =
                    procs.iter().map(|p| format!("{}: {}", p.label(), p.last_words())).collect();
                all.join("; ")
            };
            ensure!(procs.iter().all(Proc::is_running), "a proxy ended: {}", words());
            if Instant::now() > deadline {
                bail!("no answer from {to} within {START_LIMIT:?}: {last}; {}", words());
            }
            sleep(ATTEMPT_PAUSE).await;
        }
    }

    async fn ask(&self, to: SocketAddr) -> Result<()> {
        let mut stream = self.client.tcp_connect(to).await?;
        let mut message = [0_u8; MESSAGE];
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
        Ok(())
    }
}

/// Starts a program on its side's CPU.
pub(crate) fn spawn(side: Side, command: Command) -> Result<Proc> {
    cpu::on_cpu(side.cpu(), || command.spawn())
        .with_context(|| format!("cannot stay on CPU {}: two are needed", side.cpu()))?
}

/// The body of an HTTP answer, asked from inside a pod.
pub(crate) async fn http_get(pod: &Pod, to: SocketAddr, path: &str) -> Result<String> {
    let asked = timeout(START_LIMIT, async {
        let mut stream = pod.tcp_connect(to).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, anyhow::Error>(answer)
    });
    let answer = asked.await.with_context(|| format!("{to}{path}: no answer"))??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{to}{path}: {answer:.80}");
    Ok(answer)
}
