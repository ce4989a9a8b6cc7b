//! T61: somebody on the network holds the news back. The sidecar that hears nothing shows it after
//! two heartbeats, everybody else acts, and it catches up when the network is whole again.
//!
//! Never: a CA that is down; it answers everybody else all the while.

// SPDX-License-Identifier: Apache-2.0

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use myelin_tests::hole::Hole;
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Workload};

use crate::{PORT, Running, ask, deny_epoch, is_refused, revoke};

/// The CA's heartbeat, twice: after it, the documentation says, silence is no jitter any more.
const TWO_HEARTBEATS: f64 = 10.0;

#[tokio::test]
async fn news_that_are_held_back_show_as_staleness_and_arrive_when_the_way_is_free() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let cut_off = mesh.workload("cut-off").await?;
    let revoked = mesh.workload("revoked").await?;
    let to_server = server.pod.tcp_listen(server.v4(PORT)).await?;
    let to_cut_off = cut_off.pod.tcp_listen(cut_off.v4(PORT)).await?;
    eventually("it hears the CA", Duration::from_secs(20), async || {
        Ok(staleness(&cut_off).await? < TWO_HEARTBEATS)
    })
    .await?;
    let hole = Hole::dig(mesh.ca.pod(), cut_off.addresses(), mesh.dir()).await?;
    let known = Running::start(&revoked.pod, &to_server).await?;
    let mut unknown = Running::start(&revoked.pod, &to_cut_off).await?;
    revoke(&mesh.ca, &revoked.spec.id()).await?;
    known.ends_cut().await?;

    // Visible: the date of the last word stands still, and the log says so.
    eventually("staleness shows", Duration::from_secs(20), async || {
        Ok(staleness(&cut_off).await? > TWO_HEARTBEATS)
    })
    .await?;
    eventually("the log says so", Duration::from_secs(20), async || {
        Ok(cut_off.log()?.contains("may be stale"))
    })
    .await?;
    ensure!(staleness(&server).await? < TWO_HEARTBEATS, "the others hear the CA");
    // The documented worst case: it goes on with what it knows.
    ensure!(deny_epoch(&cut_off).await? < deny_epoch(&server).await?);
    unknown.talk().await?;
    ask(&revoked.pod, &to_cut_off).await?;

    hole.fill().await?;
    eventually("it has caught up", Duration::from_secs(60), async || {
        Ok(deny_epoch(&cut_off).await? >= 1.0)
    })
    .await?;
    unknown.ends_cut().await?;
    is_refused(&revoked.pod, cut_off.v4(PORT)).await
}

/// How long ago the CA last confirmed the deny list, as an alert computes it.
#[allow(clippy::disallowed_methods, reason = "compared with what a scraper's clock says")]
async fn staleness(of: &Workload) -> Result<f64> {
    let said_at = of.metrics().await?.sum("myelin_deny_list_said_at_seconds", &[]);
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() - said_at)
}
