//! The images: our own as deploy/images/Dockerfile says, with the shared libraries of a debug build
//! beside the program; the workload's likewise. Called by `cluster`.
//!
//! Never: an image from elsewhere; a shell, a package or a name service in one.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::engine::Engine;

/// As the released images are made.
const DOCKERFILE: &str = include_str!("../../../deploy/images/Dockerfile");

/// The workload's user: anybody but root and the sidecar.
const WORKLOAD: &str = "
FROM scratch AS pod-workload
ARG TARGETARCH
COPY ${TARGETARCH}/pod-workload /pod-workload
USER 1000:1000
ENTRYPOINT [\"/pod-workload\"]
";

impl Engine {
    /// Builds the image of one program and yields its name.
    pub(super) async fn image(&self, name: &str, program: &Path) -> Result<String> {
        let context = self.dir().join("images").join(name);
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let place = context.join(arch);
        fs::create_dir_all(&place)?;
        stripped(program, &place.join(name))?;
        for library in libraries(program)? {
            let beside = context.join("libraries").join(library.strip_prefix("/")?);
            fs::create_dir_all(beside.parent().context("a library has a directory")?)?;
            fs::copy(&library, &beside).with_context(|| format!("cannot copy {library:?}"))?;
        }
        let file = context.join("Dockerfile");
        let whole =
            format!("{DOCKERFILE}{WORKLOAD}\nFROM {name} AS with-libraries\nCOPY libraries /\n");
        fs::write(&file, whole)?;
        let tag = format!("localhost/{name}:{}", env!("CARGO_PKG_VERSION"));
        let platform = format!("linux/{arch}");
        let (file, context) = (file.display().to_string(), context.display().to_string());
        let args = [
            "bud",
            "--quiet",
            "--isolation",
            "chroot",
            "--platform",
            &platform,
            "--target",
            "with-libraries",
            "--file",
            &file,
            "--tag",
            &tag,
            &context,
        ];
        self.buildah(&args.map(str::to_owned)).await.with_context(|| format!("image {name}"))?;
        Ok(tag)
    }
}

/// Without what only a debugger reads: it would be copied into every layer.
fn stripped(program: &Path, to: &Path) -> Result<()> {
    let status = Command::new("strip").arg("-o").arg(to).arg(program).status();
    let status = status.context("strip is not installed: install the Debian package binutils")?;
    ensure!(status.success(), "strip could not read {}", program.display());
    Ok(())
}

/// The loader and the shared libraries of a program, as `ldd` names them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("there is no ldd")?;
    ensure!(listed.status.success(), "ldd could not read {}", program.display());
    let listed = String::from_utf8(listed.stdout)?;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries: Vec<PathBuf> = words.map(PathBuf::from).collect();
    ensure!(!libraries.is_empty(), "{} names no library: is it static?", program.display());
    Ok(libraries)
}
