//! A whole mesh: the wire, a capture on it, the CA, and pods with or without sidecars.
//!
//! Never: two meshes on one wire; every test has its own.

// SPDX-License-Identifier: Apache-2.0

use std::env;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use myelin_lab::wire::WireReport;
use myelin_lab::{Ground, Lab, Pod, addresses, ground};
use tempfile::TempDir;

use crate::ca::Ca;
use crate::watch::Watch;
use crate::workload::{Spec, Workload};

pub const TRUST_DOMAIN: &str = "mesh.test";
/// Everybody lives here, the CA included.
pub const MESH_CIDRS: [&str; 2] = ["10.77.0.0/24", "fd77::/64"];

/// What a mesh is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long SVIDs live.
    pub lifetime: Duration,
    /// How much of the wire is kept for a file.
    pub keep_bytes: usize,
    /// More flags of the CA's `serve`.
    pub ca_flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(60 * 60), keep_bytes: 0, ca_flags: Vec::new() }
    }
}

impl Options {
    pub fn lifetime(seconds: u64) -> Self {
        Self { lifetime: Duration::from_secs(seconds), ..Self::default() }
    }
}

/// The mesh of one test. Workloads are values of their own and end before it.
#[derive(Debug)]
pub struct Mesh {
    pub ca: Ca,
    pub watch: Watch,
    ground: Ground,
    lab: Lab,
    next: AtomicU8,
    dir: TempDir,
}

/// The wire without a mesh, for controls.
#[derive(Debug)]
pub struct Bare {
    pub watch: Watch,
    lab: Lab,
    next: AtomicU8,
    dir: TempDir,
}

impl Mesh {
    /// Starts wire, capture and CA. `None` only if somebody asked for it with MYELIN_SKIP_NETNS=1.
    pub async fn start(options: Options) -> Result<Option<Self>> {
        let Some(ground) = enter()? else { return Ok(None) };
        let dir = scratch()?;
        let lab = Lab::new()?;
        let watch = Watch::start(&lab, options.keep_bytes)?;
        let pod = lab.pod("ca", &addresses(1))?;
        watch.has_logs_at(pod.addresses());
        let (lifetime, flags) = (options.lifetime, &options.ca_flags);
        let ca = Ca::start_with(pod, TRUST_DOMAIN, dir.path(), lifetime, flags).await?;
        Ok(Some(Self { ca, watch, ground, lab, next: AtomicU8::new(2), dir }))
    }

    /// A pod with rules and a running, ready sidecar.
    pub async fn workload(&self, name: &str) -> Result<Workload> {
        self.workload_of(Spec::new(name)).await
    }

    /// The same, as specified.
    pub async fn workload_of(&self, spec: Spec) -> Result<Workload> {
        let workload = self.prepare(spec).await?;
        workload.run().await?;
        Ok(workload)
    }

    /// Pod, rules and configuration, but no sidecar yet.
    pub async fn prepare(&self, spec: Spec) -> Result<Workload> {
        let pod = self.pod(&spec.name)?;
        Workload::prepare(self, &self.ca, pod, spec).await
    }

    /// The same in a pod that is there already, enrolled at any CA.
    pub async fn prepare_in(&self, pod: Pod, ca: &Ca, spec: Spec) -> Result<Workload> {
        Workload::prepare(self, ca, pod, spec).await
    }

    /// The same, enrolled with this token at whatever answers there as a CA.
    pub async fn prepare_at(
        &self,
        pod: Pod,
        ca: SocketAddr,
        token: &str,
        spec: Spec,
    ) -> Result<Workload> {
        Workload::prepare_at(self, ca, ("token", token), pod, spec).await
    }

    /// A pod without rules and without a sidecar.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.lab.pod(name, &addresses(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Another CA on the same wire.
    pub async fn another_ca(&self, trust_domain: &str, lifetime: Duration) -> Result<Ca> {
        let pod = self.pod_of_ca("other-ca")?;
        Ca::start(pod, trust_domain, self.dir.path(), lifetime).await
    }

    /// Another CA, below a root whose key is elsewhere; it waits for its first intermediate.
    pub async fn ca_below(&self, trust_domain: &str, root: &Path) -> Result<Ca> {
        let (pod, lifetime) = (self.pod_of_ca("below-ca")?, Options::default().lifetime);
        Ca::start_below(pod, trust_domain, self.dir.path(), lifetime, root).await
    }

    /// A pod for a CA, whose public logs sidecars read in plaintext.
    pub fn pod_of_ca(&self, name: &str) -> Result<Pod> {
        let pod = self.pod(name)?;
        self.watch.has_logs_at(pod.addresses());
        Ok(pod)
    }

    pub fn ground(&self) -> Ground {
        self.ground
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A directory of this test, removed at its end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new directory below it.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        subdir(self.dir.path(), name)
    }

    pub fn canary(&self) -> &str {
        self.watch.canary()
    }

    /// Only TLS 1.3 crossed the wire so far, and the canary was nowhere in it.
    pub async fn demand_clean_wire(&self) -> Result<WireReport> {
        self.watch.demand_clean().await
    }
}

impl Bare {
    pub fn start() -> Result<Option<Self>> {
        let Some(_ground) = enter()? else { return Ok(None) };
        let lab = Lab::new()?;
        let watch = Watch::start(&lab, 0)?;
        Ok(Some(Self { watch, lab, next: AtomicU8::new(2), dir: scratch()? }))
    }

    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.lab.pod(name, &addresses(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A new directory that every user may enter.
pub fn subdir(parent: &Path, name: &str) -> Result<PathBuf> {
    let path = parent.join(name);
    std::fs::create_dir_all(&path)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

/// Demanded and skipped at once is a contradiction that nobody should read as a pass.
pub(crate) fn enter() -> Result<Option<Ground>> {
    let is_set = |name| env::var_os(name).is_some_and(|value| value == "1");
    if is_set("MYELIN_REQUIRE_NETNS") && is_set("MYELIN_SKIP_NETNS") {
        bail!("MYELIN_REQUIRE_NETNS=1 and MYELIN_SKIP_NETNS=1 contradict each other: unset one");
    }
    ground::enter_unless_skipped()
}

fn scratch() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("myelin-").tempdir()?;
    // Servers run as other users and must get to their own directories below.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
    Ok(dir)
}
