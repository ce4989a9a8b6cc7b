//! A Prometheus beside the demo, where one is installed: it scrapes the demo's own processes and
//! evaluates the alerts that the chart ships. Called by `demo` before the story, and by the story.
//! Never: asks over the wire that the demo records; each question is carried into the pod of the one
//! who answers, on its loopback.

// SPDX-License-Identifier: Apache-2.0

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use myelin_lab::{Netns, Pod};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::mesh::TRUST_DOMAIN;
use super::scrape::{self, CA_OPS, SIDECAR_OPS};
use super::stage::{START_LIMIT, Stage};

/// The rules that the chart installs.
const ALERTS: &str = include_str!("../../../chart/alerts/alerts.yaml");

/// Where somebody expects a Prometheus; another port is taken if this one is not free.
const USUAL_PORT: u16 = 9090;

/// Prometheus keeps one connection to each process; a curious human opens some more.
const MOST_QUESTIONS: usize = 16;

const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A running Prometheus and the ways into the pods. Dropping it ends both.
pub(super) struct Prometheus {
    pub(super) address: SocketAddr,
    child: Child,
    _ways: JoinSet<()>,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The installed program, or the one line that says what to install.
pub(super) fn installed() -> Result<PathBuf> {
    find(std::env::var_os("PATH").unwrap_or_default())
}

fn find(paths: impl AsRef<OsStr>) -> Result<PathBuf> {
    std::env::split_paths(&paths).map(|folder| folder.join("prometheus")).find(|path| path.is_file()).context(
        "--prometheus needs the program `prometheus` in PATH; on Debian and Ubuntu: apt-get install prometheus",
    )
}

impl Stage {
    /// Starts it before the processes that it watches: what is not there yet is down.
    pub(super) async fn start_prometheus(&mut self, program: &Path) -> Result<SocketAddr> {
        let place = self.make_dir("prometheus", None)?;
        let mut ways = JoinSet::new();
        let (client, server) = (&self.pods.client, &self.pods.server);
        let sidecars = [
            target(&mut ways, client, SIDECAR_OPS).await?,
            target(&mut ways, server, SIDECAR_OPS).await?,
        ];
        let ca = [target(&mut ways, &self.pods.ca, CA_OPS).await?];
        let write = |name: &str, text: &str| {
            let path = place.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("alerts.yaml", ALERTS)?;
        // JSON is YAML.
        write("prometheus.yaml", &configuration(&sidecars, &ca).to_string())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await?));
        let child = spawn(program, &place, address, &self.log("prometheus"))?;
        let mut prometheus = Prometheus { address, child, _ways: ways };
        prometheus.until_ready(&self.log("prometheus")).await?;
        self.prometheus = Some(prometheus);
        Ok(address)
    }
}

impl Prometheus {
    async fn until_ready(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(stream) = TcpStream::connect(self.address).await
                && let Ok((status, _)) = scrape::get(stream, "/-/ready").await
                && status.is_success()
            {
                return Ok(());
            }
            let ended = self.child.try_wait().context("cannot ask after Prometheus")?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it said nothing");
                bail!("Prometheus does not get ready: {last}");
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

/// A port of this machine's loopback whose connections end in the pod, and what Prometheus shall
/// call it: the labels that the chart's monitors give in a cluster.
async fn target(ways: &mut JoinSet<()>, pod: &Pod, port: u16) -> Result<Value> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("cannot listen on this machine's loopback")?;
    let here = listener.local_addr().context("a listener has an address")?;
    ways.spawn(carry(listener, pod.netns().clone(), port));
    Ok(json!({
        "targets": [here.to_string()],
        "labels": {"mesh": TRUST_DOMAIN, "namespace": "demo", "pod": pod.name()},
    }))
}

async fn carry(listener: TcpListener, netns: Netns, port: u16) {
    let questions = Arc::new(Semaphore::new(MOST_QUESTIONS));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&questions).acquire_owned().await else { return };
        let Ok((mut outside, _)) = listener.accept().await else { continue };
        let netns = netns.clone();
        open.spawn(async move {
            let _permit = permit;
            // Whoever is not there, or goes in between, is down: Prometheus says so.
            let Ok(Ok(socket)) = netns.run(TcpSocket::new_v4) else { return };
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let Ok(mut inside) = socket.connect(to).await else { return };
            copy_bidirectional(&mut outside, &mut inside).await.ok();
        });
    }
}

fn configuration(sidecars: &[Value], ca: &[Value]) -> Value {
    json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {"job_name": "myelin-sidecar", "static_configs": sidecars},
            {"job_name": "myelin-ca", "static_configs": ca},
        ],
    })
}

/// The usual port if it is free, else one that the kernel knows to be.
async fn free_port() -> Result<u16> {
    for port in [USUAL_PORT, 0] {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener.local_addr().context("a listener has an address")?.port());
        }
    }
    bail!("no port of this machine's loopback is free for Prometheus")
}

fn spawn(program: &Path, place: &Path, address: SocketAddr, log: &Path) -> Result<Child> {
    let said = File::create(log).context("cannot make a log for Prometheus")?;
    let flag = |name: &str, value: &OsStr| {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value);
        flag
    };
    Command::new(program)
        .arg(flag("config.file", place.join("prometheus.yaml").as_os_str()))
        .arg(flag("storage.tsdb.path", place.join("data").as_os_str()))
        .arg(flag("web.listen-address", OsStr::new(&address.to_string())))
        .stdin(Stdio::null())
        .stdout(said.try_clone().context("cannot share a log")?)
        .stderr(said)
        // A Ctrl-C at the terminal reaches the demo alone, which ends it in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_prometheus_is_found_and_a_missing_one_is_named_with_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let missing = find(folder.path()).unwrap_err().to_string();
        assert!(missing.contains("apt-get install prometheus"), "{missing}");
        assert_eq!(missing.lines().count(), 1);
        fs::write(folder.path().join("prometheus"), "").unwrap();
        assert_eq!(find(folder.path()).unwrap(), folder.path().join("prometheus"));
    }
}
