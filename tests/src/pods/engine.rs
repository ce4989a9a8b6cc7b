//! podman and buildah with a storage of their own: nothing of the host's is seen or touched, and
//! everything is gone at the end. Called by the other files of this room.
//!
//! Never: pulls an image, writes a network of podman's, or leaves a container behind.

// SPDX-License-Identifier: Apache-2.0

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use tempfile::TempDir;

use crate::binaries::installed;
use crate::programs::random_word;

/// One command of podman's takes a fifth of a second here.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// As long as that, for who tidies up behind a container that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
const STRAGGLER_LOOKS: u32 = 2_400;

/// Hierarchies of control groups below here hold one group of ours each.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The hard limits of a machine may be lower than podman's defaults. `cgroupfs` and `runc` work
/// without systemd; locks in files are this storage's own.
const CONFIGURATION: &str = "\
[containers]
base_hosts_file = \"none\"
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
lock_type = \"file\"
";

/// One private storage with its images and containers.
#[derive(Debug)]
pub struct Engine {
    dir: TempDir,
    podman: PathBuf,
    buildah: PathBuf,
    driver: &'static str,
    /// The control group above all containers of this storage.
    parent: String,
}

impl Engine {
    /// `None` only where podman or buildah is not installed and nobody demands the suite
    /// (`MYELIN_REQUIRE_NETNS=1`); that is said aloud.
    pub fn open() -> Result<Option<Self>> {
        let found = installed("podman", "podman").and_then(|podman| {
            installed("runc", "runc")?;
            Ok((podman, installed("buildah", "buildah")?))
        });
        let (podman, buildah) = match found {
            Ok(found) => found,
            Err(why) if env::var_os("MYELIN_REQUIRE_NETNS").is_some_and(|set| set == "1") => {
                return Err(why);
            }
            Err(why) => {
                skipped(&format!("{why:#}"));
                return Ok(None);
            }
        };
        let dir = tempfile::Builder::new().prefix("myelin-pods-").tempdir()?;
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        fs::write(dir.path().join("containers.conf"), CONFIGURATION)?;
        // An overlay upon an overlay, as a container's root has it, is refused by the kernel.
        let layered = statfs(dir.path())?.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
        let driver = if layered { "vfs" } else { "overlay" };
        let parent = format!("myelin-pods-{}", random_word()?);
        Ok(Some(Self { dir, podman, buildah, driver, parent }))
    }

    /// A directory of this engine, removed with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new directory below it.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir().join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path)
    }

    /// The control group to put containers into.
    pub(super) fn cgroup_parent(&self) -> String {
        format!("/{}", self.parent)
    }

    /// Runs podman to its end and yields what it printed.
    pub(super) async fn podman(&self, args: &[String]) -> Result<String> {
        let mut command = self.command(&self.podman);
        command.arg("--tmpdir").arg(self.dir().join("tmp")).args(args);
        ended(command, args).await
    }

    /// Runs buildah to its end.
    pub(super) async fn buildah(&self, args: &[String]) -> Result<String> {
        let mut command = self.command(&self.buildah);
        command.args(args);
        ended(command, args).await
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("CONTAINERS_CONF", self.dir().join("containers.conf"))
            .env_remove("CONTAINER_HOST")
            .env("TMPDIR", self.dir())
            .args(["--storage-driver", self.driver])
            .arg("--root")
            .arg(self.dir().join("storage"))
            .arg("--runroot")
            .arg(self.dir().join("run"));
        command
    }

    fn remove_all(&self) -> Result<()> {
        let mut command = self.command(&self.podman);
        command.arg("--tmpdir").arg(self.dir().join("tmp"));
        output(command.args(["rm", "--all", "--force", "--time", "0"]), "podman rm --all")?;
        self.wait_for_stragglers()?;
        // podman binds this directory upon itself, and may leave it so.
        while umount2(&self.dir().join("storage/overlay"), MntFlags::MNT_DETACH).is_ok() {}
        for hierarchy in fs::read_dir(CGROUPS)?.flatten() {
            let group = hierarchy.path().join(&self.parent);
            if group.is_dir() {
                fs::remove_dir(&group).with_context(|| format!("cannot remove {group:?}"))?;
            }
        }
        let unified = Path::new(CGROUPS).join(&self.parent);
        if unified.is_dir() {
            fs::remove_dir(&unified).with_context(|| format!("cannot remove {unified:?}"))?;
        }
        fs::remove_dir_all(self.dir()).context("cannot remove the engine's directory")
    }

    /// When a container ends, its monitor starts a podman of its own that tidies up.
    fn wait_for_stragglers(&self) -> Result<()> {
        let dir = self.dir().as_os_str().as_encoded_bytes();
        let is_ours = |process: &fs::DirEntry| {
            let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
            words.windows(dir.len()).any(|part| part == dir)
        };
        for _ in 0..STRAGGLER_LOOKS {
            if !fs::read_dir("/proc")?.flatten().any(|process| is_ours(&process)) {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
        bail!("something still runs on {}", self.dir().display())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(why) = self.remove_all() {
            // A test that fails already has its own reason to tell.
            assert!(thread::panicking(), "the containers were not removed: {why:#}");
        }
    }
}

/// Skipped by name, and never in silence.
#[expect(clippy::print_stderr, reason = "whoever reads the suite's output must see it")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: the suite pods: {why}");
}

async fn ended(mut command: Command, args: &[String]) -> Result<String> {
    let what = args.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ");
    let shown = what.clone();
    let run = tokio::task::spawn_blocking(move || output(&mut command, &shown));
    match tokio::time::timeout(COMMAND_LIMIT, run).await {
        Ok(joined) => joined?,
        Err(_) => bail!("{what}: not within {COMMAND_LIMIT:?}"),
    }
}

fn output(command: &mut Command, what: &str) -> Result<String> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().with_context(|| format!("cannot start {program:?}"))?;
    ensure!(
        output.status.success(),
        "{program:?} {what}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
