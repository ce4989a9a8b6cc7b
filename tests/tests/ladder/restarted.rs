//! A sidecar that starts again after a rotation was gone back from, and meets a CA of before: a copy
//! that still stands on the rung that was given up. All that it says was signed by a trusted root
//! once. The sidecar has kept the generation that it held, and goes forward only.
//!
//! Never: a record that no trusted root has signed; those are in `forged`.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Workload};

use crate::{PORT, Running, SOME_LIVES, acknowledged, generation, rotate, status, trusts};

/// Copies a directory of plain files and directories.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// How many roots the sidecar has kept for its next start.
fn kept_roots(of: &Workload) -> Result<usize> {
    let kept = fs::read_to_string(of.state_dir().join("bundle.pem"))?;
    Ok(kept.matches("BEGIN CERTIFICATE").count())
}

#[tokio::test]
async fn a_restarted_sidecar_passes_over_a_rung_that_was_given_up_and_takes_a_newer_one()
-> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let (data, then) = (mesh.ca.data(), mesh.dir().join("ca-then"));
    let now = mesh.dir().join("ca-now");
    rotate(&mesh.ca, &["prepare"]).await?;
    acknowledged(&mesh.ca).await?;
    mesh.ca.kill9();
    copy(data, &then)?;
    mesh.ca.up().await?;
    rotate(&mesh.ca, &["abort"]).await?;
    for sidecar in [&server, &client] {
        trusts(sidecar, 3.0).await?;
        eventually("it is kept", SOME_LIVES, async || Ok(kept_roots(sidecar)? == 1)).await?;
        sidecar.kill9();
    }

    // The CA of before the abort: two roots, of which one was given up.
    mesh.ca.kill9();
    fs::rename(data, &now)?;
    fs::rename(&then, data)?;
    mesh.ca.up().await?;
    ensure!(status(&mesh.ca).await?["generation"] == 2, "it stands on the rung of before");
    for sidecar in [&server, &client] {
        sidecar.run().await.with_context(|| sidecar.last_words())?;
        eventually("what the CA announces is passed over", SOME_LIVES, async || {
            let passed = [("outcome", "bundle_rejected")];
            Ok(sidecar.metrics().await?.sum("myelin_trust_updates_total", &passed) >= 1.0)
        })
        .await
        .with_context(|| sidecar.last_words())?;
        ensure!(generation(sidecar).await? == 3.0, "it was led back: {}", sidecar.last_words());
        ensure!(kept_roots(sidecar)? == 1, "the root that was given up is kept");
    }
    // They serve each other under what they hold.
    Running::start(&client.pod, &listener).await?.talk().await?;

    // The CA of now again, and a further rotation: that one is taken.
    for sidecar in [&server, &client] {
        sidecar.kill9();
    }
    mesh.ca.kill9();
    fs::rename(data, &then)?;
    fs::rename(&now, data)?;
    mesh.ca.up().await?;
    rotate(&mesh.ca, &["prepare"]).await?;
    for sidecar in [&server, &client] {
        sidecar.run().await.with_context(|| sidecar.last_words())?;
        trusts(sidecar, 4.0).await?;
        ensure!(kept_roots(sidecar)? == 2, "the new root is kept");
    }
    Running::start(&client.pod, &listener).await?.talk().await
}
