//! One workload's pod with its rules and its real sidecar process: configured, started, asked,
//! reloaded, killed.
//!
//! Never: runs the sidecar as root where the host can tell users apart.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::{Command, Ground, Pod, Proc};
use nix::sys::signal::Signal;

use crate::binaries;
use crate::ca::Ca;
use crate::http;
use crate::mesh::{MESH_CIDRS, Mesh, TRUST_DOMAIN, subdir};
use crate::metrics::Metrics;
use crate::programs::{LIMIT, eventually, output};

pub const OUTBOUND_PORT: u16 = 15_001;
pub const INBOUND_PORT: u16 = 15_006;
pub const OPS_PORT: u16 = 15_020;

/// What a workload's sidecar is told.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    /// `/ns/<namespace>/sa/<service account>`; by default `/ns/test/sa/<name>`.
    pub path: String,
    pub trust_domain: String,
    pub federates_with: Vec<String>,
    pub federates_unlogged: Vec<String>,
    /// More of the configuration file: tables such as `[[inbound.allow]]`.
    pub tables: String,
    /// Replaces the lines of `[limits]`.
    pub limits: String,
    pub mesh_cidrs: Vec<String>,
    /// More flags of `intercept apply`.
    pub intercept: Vec<String>,
    /// Bound of file descriptors, if the test is about that.
    pub descriptors: Option<u32>,
    /// Operators beside root.
    pub admin_uids: Vec<u32>,
    /// Lines of `[ca]` that say how it attests, in place of a join token; `DIR` is its directory,
    /// into which the test puts whatever it shows.
    pub attests: Option<String>,
    /// Replicas of the CA beside the one that made the token.
    pub more_cas: Vec<SocketAddr>,
    /// More lines of `[log]`.
    pub log: String,
}

/// What a sidecar's file says of who is at this address; `more` are further keys.
pub fn declared_peer(address: IpAddr, id: &str, more: &str) -> String {
    format!("[[outbound.peer]]\naddress = \"{address}\"\nid = \"{id}\"\n{more}\n")
}

impl Spec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: format!("/ns/test/sa/{name}"),
            trust_domain: TRUST_DOMAIN.to_owned(),
            federates_with: Vec::new(),
            federates_unlogged: Vec::new(),
            tables: String::new(),
            limits: String::new(),
            mesh_cidrs: MESH_CIDRS.map(str::to_owned).to_vec(),
            intercept: Vec::new(),
            descriptors: None,
            admin_uids: Vec::new(),
            attests: None,
            more_cas: Vec::new(),
            log: String::new(),
        }
    }

    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub fn tables(mut self, tables: &str) -> Self {
        tables.clone_into(&mut self.tables);
        self
    }

    pub fn limits(mut self, limits: &str) -> Self {
        limits.clone_into(&mut self.limits);
        self
    }

    /// More lines of `[log]`.
    pub fn log(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.log);
        self
    }

    /// Attests by these lines of `[ca]`, in place of a join token.
    pub fn attests(mut self, lines: &str) -> Self {
        self.attests = Some(lines.to_owned());
        self
    }

    pub fn id(&self) -> String {
        format!("spiffe://{}{}", self.trust_domain, self.path)
    }
}

/// A pod with a sidecar.
#[derive(Debug)]
pub struct Workload {
    pub pod: Pod,
    pub spec: Spec,
    ground: Ground,
    dir: PathBuf,
    ca: SocketAddr,
    /// `None` while it is down.
    process: Mutex<Option<Proc>>,
}

impl Workload {
    pub(crate) async fn prepare(mesh: &Mesh, ca: &Ca, pod: Pod, spec: Spec) -> Result<Self> {
        let (name, text) = match &spec.attests {
            None => ("token", ca.token(&spec.id(), pod.addresses()).await?),
            Some(_) => ("bundle.pem", ca.bundle_pem().await?),
        };
        Self::prepare_at(mesh, ca.endpoint(), (name, &text), pod, spec).await
    }

    /// With the file by which it enrolls at whatever answers there as a CA.
    pub(crate) async fn prepare_at(
        mesh: &Mesh,
        ca: SocketAddr,
        (name, text): (&str, &str),
        pod: Pod,
        spec: Spec,
    ) -> Result<Self> {
        let dir = subdir(mesh.dir(), &spec.name)?;
        let workload =
            Self { pod, spec, ground: mesh.ground(), dir, ca, process: Mutex::new(None) };
        workload.own(&subdir(&workload.dir, "run")?, 0o755)?;
        workload.write(name, text)?;
        workload.write_config()?;
        workload.own(&workload.dir, 0o755)?;
        output(workload.intercept(&["apply"])?, LIMIT).await?;
        Ok(workload)
    }

    /// Starts the sidecar and waits until it is ready.
    pub async fn run(&self) -> Result<()> {
        self.start()?;
        self.ready().await
    }

    /// Starts the sidecar and does not wait.
    pub fn start(&self) -> Result<()> {
        let process = self.sidecar_command()?.spawn()?;
        *self.process.lock().expect("no holder of the lock panics") = Some(process);
        Ok(())
    }

    /// Waits until `/ready` says yes.
    pub async fn ready(&self) -> Result<()> {
        let name = &self.spec.name;
        let what = format!("{name} is ready");
        let ready = eventually(&what, LIMIT, async || {
            ensure!(self.is_running(), "the sidecar of {name} ended");
            let page = self.ops("/ready").await?;
            ensure!(page.status == 200, "not ready: {}", page.body);
            Ok(true)
        });
        ready.await.with_context(|| self.last_words())
    }

    /// Whether `/ready` says yes now.
    pub async fn is_ready(&self) -> Result<bool> {
        Ok(self.ops("/ready").await?.status == 200)
    }

    /// `myelin-sidecar run`, with the right user, for whoever wants to start it in his own way.
    pub fn sidecar_command(&self) -> Result<Command> {
        let binary = binaries::sidecar()?;
        let command = match self.spec.descriptors {
            None => self.pod.command(binary),
            Some(bound) => self
                .pod
                .command("sh")
                .args(["-c", &format!("ulimit -n {bound}; exec \"$0\" \"$@\"")])
                .arg(binary),
        };
        Ok(command
            .args(["run", "--config"])
            .arg(self.config_path())
            .sidecar_identity(self.ground.proxy_uid())
            .label(format!("sidecar of {}", self.spec.name))
            .tee(self.dir.join("sidecar.log")))
    }

    /// `myelin-sidecar intercept ...` as root in the pod.
    pub fn intercept(&self, args: &[&str]) -> Result<Command> {
        let command = self.pod.command(binaries::sidecar()?).arg("intercept").args(args);
        if args.first() != Some(&"apply") {
            return Ok(command);
        }
        let uid = self.ground.proxy_uid().to_string();
        Ok(command.args(["--proxy-uid", &uid]).args(&self.spec.intercept))
    }

    /// Kills the sidecar at once.
    pub fn kill9(&self) {
        if let Some(process) = self.take() {
            process.kill9();
        }
    }

    /// Hands the process over, for tests about its end.
    pub fn take(&self) -> Option<Proc> {
        self.process.lock().expect("no holder of the lock panics").take()
    }

    /// Changes what the file says and has the sidecar read it again (SIGHUP).
    pub fn reload(&mut self, change: impl FnOnce(&mut Spec)) -> Result<()> {
        change(&mut self.spec);
        self.write_config()?;
        self.signal(Signal::SIGHUP);
        Ok(())
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock().expect("no holder of the lock panics");
        if let Some(process) = process.as_ref() {
            process.signal(signal);
        }
    }

    pub fn is_running(&self) -> bool {
        let process = self.process.lock().expect("no holder of the lock panics");
        process.as_ref().is_some_and(Proc::is_running)
    }

    pub fn pid(&self) -> Option<u32> {
        let process = self.process.lock().expect("no holder of the lock panics");
        process.as_ref().map(Proc::pid)
    }

    pub fn last_words(&self) -> String {
        let process = self.process.lock().expect("no holder of the lock panics");
        process.as_ref().map_or_else(|| "it is down".to_owned(), Proc::last_words)
    }

    /// Everything that the sidecar has said since its first start.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("sidecar.log"))?)
    }

    /// Asked over the pod's own loopback, so that no plaintext crosses the wire.
    pub async fn ops(&self, path: &str) -> Result<http::Response> {
        let own = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), OPS_PORT);
        http::request(&self.pod, own, "GET", path).await
    }

    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.ops("/metrics").await?.body)
    }

    /// Waits until this many connections have ended with this outcome word.
    pub async fn outcome(&self, direction: &str, word: &str, at_least: f64) -> Result<()> {
        let what = format!("{}: {at_least} {direction} connections end as {word}", self.spec.name);
        let seen = eventually(&what, Duration::from_secs(20), async || {
            let metrics = self.metrics().await?;
            let seen = metrics.outcome(direction, word);
            ensure!(seen >= at_least, "seen were {:?}", metrics.outcomes());
            Ok(true)
        });
        seen.await.with_context(|| self.last_words())
    }

    /// Waits until this many connections of this security have ended, however they ended: some
    /// programs close with a reset or without close_notify, with or without a mesh.
    pub async fn ended(&self, direction: &str, security: &str, at_least: f64) -> Result<()> {
        let what = format!("{}: {at_least} {direction} {security} connections end", self.spec.name);
        let labels = [("direction", direction), ("security", security)];
        let seen = eventually(&what, Duration::from_secs(20), async || {
            let metrics = self.metrics().await?;
            let seen = metrics.sum("myelin_connections_closed_total", &labels);
            ensure!(seen >= at_least, "seen were {:?}", metrics.outcomes());
            Ok(true)
        });
        seen.await.with_context(|| self.last_words())
    }

    /// The operator's socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join("run/admin.sock")
    }

    /// Copies another workload's state directory, as a thief with root would.
    pub fn steal_state_of(&self, other: &Self) -> Result<()> {
        let (to, owner) = (self.state_dir(), self.ground.proxy_uid());
        fs::create_dir_all(&to)?;
        fs::set_permissions(&to, PermissionsExt::from_mode(0o700))?;
        chown(&to, Some(owner), Some(owner))?;
        for entry in fs::read_dir(other.state_dir())? {
            let entry = entry?;
            // What is learned of logs lies in a directory of its own, and proves nobody.
            if !entry.file_type()?.is_file() {
                continue;
            }
            let target = to.join(entry.file_name());
            // Copies the permissions as well.
            fs::copy(entry.path(), &target)?;
            chown(&target, Some(owner), Some(owner))?;
        }
        Ok(())
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.join("sidecar.toml")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), port)
    }

    pub fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.pod.v6(), port)
    }

    pub fn addresses(&self) -> &[IpAddr] {
        self.pod.addresses()
    }

    /// Writes the file anew; the sidecar reads it at its next start.
    pub fn write_config(&self) -> Result<()> {
        let spec = &self.spec;
        let dir = self.dir.display();
        let cas = std::iter::once(&self.ca).chain(&spec.more_cas);
        let cas: Vec<String> = cas.map(|ca| format!("\"{ca}\"")).collect();
        let attests = match &spec.attests {
            None => format!("join_token_file = \"{dir}/token\""),
            Some(lines) => {
                let lines = lines.replace("DIR", &dir.to_string());
                format!("bundle_file = \"{dir}/bundle.pem\"\n{lines}")
            }
        };
        let cidrs: Vec<String> = spec.mesh_cidrs.iter().map(|range| format!("{range:?}")).collect();
        let text = format!(
            "trust_domain = {:?}\nfederates_with = {:?}\nfederates_unlogged = {:?}\nid = {:?}\nmesh_cidrs = [{}]\nstate_dir = \"{dir}/state\"\n\
             [ca]\naddress = [{}]\n{attests}\n\
             [listen]\nadmin = \"{dir}/run/admin.sock\"\nadmin_uids = {:?}\nworkers = 2\n\
             [intercept]\nproxy_uid = {}\nverify = {}\n[log]\nlevel = \"debug\"\n{}\n[limits]\n{}\n{}\n",
            spec.trust_domain,
            spec.federates_with,
            spec.federates_unlogged,
            spec.id(),
            cidrs.join(", "),
            cas.join(", "),
            spec.admin_uids,
            self.ground.proxy_uid(),
            // `/ready` compares the rules with those that have no exclusions.
            spec.intercept.is_empty(),
            spec.log,
            spec.limits,
            spec.tables,
        );
        self.write("sidecar.toml", &text)
    }

    /// Puts a file into its directory that only its sidecar may read.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        self.own(&path, 0o600)
    }

    fn own(&self, path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
        let uid = self.ground.proxy_uid();
        chown(path, Some(uid), Some(uid))
            .with_context(|| format!("cannot chown {}", path.display()))
    }
}
