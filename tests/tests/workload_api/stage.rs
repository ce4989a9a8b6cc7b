//! A workload whose sidecar offers the Workload API, and the Python client as any user.
//!
//! Never: a verdict; the suites give those.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use myelin_lab::{Command, Pod};
use myelin_tests::programs::{LIMIT, output};
use myelin_tests::{Mesh, Spec, binaries};
use spiffe::WorkloadApiClient;

pub(crate) const WEB: &str = "spiffe://mesh.test/ns/test/sa/web";
const CLIENT: &str = include_str!("client.py");

/// Short enough to see some renewals within a test.
pub(crate) const LIFETIME_SECONDS: u64 = 12;

/// Where the sidecar of this name will listen.
pub(crate) fn socket(mesh: &Mesh, name: &str) -> PathBuf {
    mesh.dir().join(name).join("workload/api.sock")
}

/// A workload with the socket, for this process's user and those named.
pub(crate) fn offering(mesh: &Mesh, name: &str, uids: &[u32], more: &str) -> Spec {
    let mut allowed = vec![nix::unistd::geteuid().as_raw()];
    allowed.extend(uids);
    let socket = socket(mesh, name);
    let table =
        format!("[workload_api]\nsocket = {socket:?}\nallowed_uids = {allowed:?}\n{more}\n");
    Spec::new(name).tables(&table)
}

/// The `spiffe` crate, connected.
pub(crate) async fn connect(socket: &Path) -> Result<WorkloadApiClient> {
    Ok(WorkloadApiClient::connect_to(format!("unix://{}", socket.display())).await?)
}

/// The Python client, as the user of this test.
pub(crate) fn python(pod: &Pod, mesh: &Mesh, args: &[&str], socket: &Path) -> Result<Command> {
    let script = mesh.dir().join("client.py");
    fs::write(&script, CLIENT)?;
    let (what, rest) = args.split_first().expect("the script has a mode");
    Ok(pod
        .command(binaries::installed("python3", "python3")?)
        .arg(script)
        .arg(what)
        .arg(format!("unix:{}", socket.display()))
        .args(rest)
        .env("PYTHONPATH", binaries::spiffe_for_python()?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .label("python client"))
}

/// What one bare call by the user `uid` is answered: `answer <bytes>`, or the gRPC status and its
/// message. By curl, which every user may run.
pub(crate) async fn raw(
    pod: &Pod,
    mesh: &Mesh,
    socket: &Path,
    uid: u32,
    (method, header): (&str, Option<&str>),
) -> Result<String> {
    let empty = mesh.dir().join("empty.grpc");
    fs::write(&empty, [0; 5])?;
    // A stream that is served goes on: curl leaves it after a while, which is no failure here.
    let command = pod
        .command("sh")
        .args(["-c", "\"$@\" || true", "sh"])
        .arg(binaries::installed("curl", "curl")?)
        .args(["--silent", "--http2-prior-knowledge", "--max-time", "3", "-D", "-"])
        .args(["-o", "/dev/null", "-w", "size: %{size_download}\n", "--unix-socket"])
        .arg(socket)
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(
            header
                .iter()
                .flat_map(|value| ["-H".to_owned(), format!("workload.spiffe.io: {value}")]),
        )
        .arg("--data-binary")
        .arg(format!("@{}", empty.display()))
        .arg(format!("http://localhost/SpiffeWorkloadAPI/{method}"))
        .label("bare call")
        .identity(uid, uid);
    let said = output(command, LIMIT).await?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match value("grpc-status: ") {
        Some(status) => {
            let message = value("grpc-message: ").unwrap_or_default().replace("%20", " ");
            Ok(format!("{status} {}", message.replace("%60", "`")))
        }
        // A frame of gRPC has a header of five bytes; without a server curl says that nothing came.
        None => match value("size: ").and_then(|size| size.parse::<u64>().ok()) {
            Some(bytes) if bytes > 5 => Ok(format!("answer {bytes}")),
            _ => bail!("neither a status nor an answer: {said}"),
        },
    }
}
