//! Finds `myelin-ca` and `myelin-sidecar`: beside this program. When this program lies in a target
//! directory of its checkout they are built first, so that `cargo run` needs no second command.
//! Never: downloads anything, or takes a program from the PATH that happens to have the name.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{AccessFlags, access};

use super::view::View;
use crate::args::DemoArgs;

/// Lines of a failed build that are repeated: a compiler's first error and some more.
const QUOTED_LINES: usize = 40;

/// The programs of the demo.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) ca: PathBuf,
    pub(super) sidecar: PathBuf,
    /// This program, which plays services and clients.
    pub(super) own: PathBuf,
}

impl Binaries {
    /// Blocks for as long as a build takes; called before the runtime starts.
    pub(super) fn locate(options: &DemoArgs, view: &mut View) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let all_named = options.ca_bin.is_some() && options.sidecar_bin.is_some();
        if let (Some(checkout), Some(cargo), false) = (Checkout::of(&own), cargo(), all_named) {
            checkout.build(&cargo, view)?;
        }
        let beside = |name: &str| own.with_file_name(name);
        let ca = options.ca_bin.clone().unwrap_or_else(|| beside("myelin-ca"));
        let sidecar = options.sidecar_bin.clone().unwrap_or_else(|| beside("myelin-sidecar"));
        Ok(Self {
            ca: program(&ca, "--ca-bin")?,
            sidecar: program(&sidecar, "--sidecar-bin")?,
            own,
        })
    }
}

/// The cargo that started us, or the one in the PATH. Without one, what was built before is used.
fn cargo() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let in_path = || {
        std::env::split_paths(&paths).map(|folder| folder.join("cargo")).find(|path| path.is_file())
    };
    named.or_else(in_path)
}

/// An absolute path, because programs are started in other directories.
fn program(path: &Path, flag: &str) -> Result<PathBuf> {
    let found = path.canonicalize().with_context(|| {
        format!("{} is not there: build it, or name it with {flag}", path.display())
    })?;
    ensure!(found.is_file(), "{} is no file: name the program with {flag}", path.display());
    Ok(found)
}

/// The place from which this program was built, if it still lies in that checkout's target directory.
struct Checkout {
    manifest: PathBuf,
    target: PathBuf,
    profile: String,
}

impl Checkout {
    fn of(own: &Path) -> Option<Self> {
        let folder = own.parent()?;
        let target = folder.parent()?.to_path_buf();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let is_target = target.join(".rustc_info.json").is_file();
        // Somebody else's checkout is used as it is.
        let is_ours = access(folder, AccessFlags::W_OK).is_ok();
        if !is_target || !is_ours || !manifest.is_file() {
            return None;
        }
        let profile = match folder.file_name()?.to_str()? {
            "debug" => "dev".to_owned(),
            name => name.to_owned(),
        };
        Some(Self { manifest: manifest.canonicalize().ok()?, target, profile })
    }

    fn build(&self, cargo: &Path, view: &mut View) -> Result<()> {
        let mut child = Command::new(cargo)
            // The default members, as `cargo run` has just built: their dependencies are there.
            .args(["build", "--color", "never"])
            .args(["--profile", &self.profile, "--manifest-path"])
            .arg(&self.manifest)
            .arg("--target-dir")
            .arg(&self.target)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cargo to build myelin-ca and myelin-sidecar; name built ones with --ca-bin and --sidecar-bin")?;
        let mut last = VecDeque::with_capacity(QUOTED_LINES);
        let mut compiled = 0;
        let output = child.stderr.take().context("cargo's output is not there")?;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(what) = line.trim_start().strip_prefix("Compiling ") {
                compiled += 1;
                view.building(compiled, what);
            }
            if last.len() == QUOTED_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        let status = child.wait().context("cannot wait for cargo")?;
        view.built(compiled);
        if !status.success() {
            let said: Vec<String> = last.into();
            bail!("cannot build myelin-ca and myelin-sidecar: cargo said\n{}", said.join("\n"));
        }
        Ok(())
    }
}
