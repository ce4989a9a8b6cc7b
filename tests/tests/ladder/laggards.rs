//! Sidecars that do not acknowledge: one that is cut off from the CA is named, may be broken by name
//! and comes back by itself; one that hangs holds the ladder up for one life and no longer.
//!
//! Never: a laggard that is forgotten, or one that has to be restarted.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Result, ensure};
use myelin_tests::hole::Hole;
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options};
use nix::sys::signal::Signal;

use crate::{LIFETIME, PORT, Running, SOME_LIVES, acknowledged, refused, rotate, status, trusts};

/// The other one renews while the straggler's SVID, which it cannot renew, has not ended yet.
const LONGER: u64 = 60;

#[tokio::test]
async fn a_sidecar_that_heard_nothing_is_named_broken_by_name_only_and_comes_back() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LONGER)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let straggler = mesh.workload("straggler").await?;
    let (id, other) = (straggler.spec.id(), server.spec.id());
    let pid = straggler.pid();
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let mut running = Running::start(&straggler.pod, &listener).await?;
    let hole = Hole::dig(mesh.ca.pod(), straggler.addresses(), mesh.dir()).await?;

    rotate(&mesh.ca, &["prepare"]).await?;
    trusts(&server, 2.0).await?;
    eventually("the other one has acknowledged", SOME_LIVES, async || {
        let seen = status(&mesh.ca).await?;
        Ok(seen["outstanding_ids"] == serde_json::json!([id]))
    })
    .await?;
    let line = refused(&mesh.ca, &["activate"]).await?;
    ensure!(line.contains("activate would strand 1") && line.contains(&id), "{line}");
    let line = refused(&mesh.ca, &["activate", "--break", &other]).await?;
    ensure!(line.contains("would break nobody called") && line.contains(&other), "{line}");
    let moved = rotate(&mesh.ca, &["activate", "--break", &id]).await?;
    ensure!(moved["broken"] == serde_json::json!([id]), "{moved}");
    // Both still hold SVIDs of the first root, which is still trusted.
    running.talk().await?;

    let line = refused(&mesh.ca, &["retire"]).await?;
    ensure!(line.contains("retire would strand") && line.contains(&id), "{line}");
    // The server's next SVID is of the new root; the straggler's cannot be.
    eventually("only it is outstanding", SOME_LIVES, async || {
        let seen = status(&mesh.ca).await?;
        ensure!(seen["outstanding_ids"] == serde_json::json!([id]), "{seen}");
        Ok(true)
    })
    .await?;
    running.talk().await?;
    rotate(&mesh.ca, &["retire", "--break", &id]).await?;
    trusts(&server, 3.0).await?;
    // T42: what ran under the retired root ends, and nothing new begins under it.
    running.ends_cut().await?;
    ensure!(Running::start(&straggler.pod, &listener).await.is_err(), "a retired root counts");

    // It slept through a whole rotation: it follows the CA's trust records, and joins by its host key.
    hole.fill().await?;
    trusts(&straggler, 3.0).await.with_context(|| straggler.last_words())?;
    eventually("it is served again", SOME_LIVES, async || {
        Running::start(&straggler.pod, &listener).await?.talk().await?;
        Ok(true)
    })
    .await?;
    ensure!(straggler.pid() == pid, "it was restarted");
    Ok(())
}

#[tokio::test]
async fn a_sidecar_that_hangs_holds_up_the_ladder_for_one_life_and_no_longer() -> Result<()> {
    let flags = vec!["--max-lifetime".to_owned(), format!("{LIFETIME}s")];
    let options = Options { ca_flags: flags, ..Options::lifetime(LIFETIME) };
    let Some(mesh) = Mesh::start(options).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let hangs = mesh.workload("hangs").await?;
    let pid = hangs.pid();
    let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
    let running = Running::start(&hangs.pod, &listener).await?;
    hangs.signal(Signal::SIGSTOP);
    rotate(&mesh.ca, &["prepare"]).await?;
    let line = refused(&mesh.ca, &["activate"]).await?;
    ensure!(line.contains(&hangs.spec.id()), "{line}");
    for asked in ["activate", "retire"] {
        // Its SVID ends within a life of its last renewal, and with it the need to wait.
        eventually(asked, SOME_LIVES, async || rotate(&mesh.ca, &[asked]).await.map(|_| true))
            .await?;
    }
    drop(running);
    ensure!(status(&mesh.ca).await?["rung"] == "settled");
    hangs.signal(Signal::SIGCONT);
    trusts(&hangs, 3.0).await.with_context(|| hangs.last_words())?;
    eventually("it is served again", SOME_LIVES, async || {
        Running::start(&hangs.pod, &listener).await?.talk().await?;
        Ok(true)
    })
    .await?;
    ensure!(hangs.pid() == pid, "it was restarted");
    acknowledged(&mesh.ca).await
}
