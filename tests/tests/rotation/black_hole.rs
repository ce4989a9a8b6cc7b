//! T48: for half a minute the network between the sidecars and their CA swallows everything, just
//! when all of them are to renew: few attempts, none of them together, and no stampede after it.
//!
//! Never: a CA that is down, or a refusal that a sidecar could act on; it hears nothing.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::hole::Hole;
use myelin_tests::programs::eventually;
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, http};
use tokio::time::{Instant, sleep};

use crate::serial;

/// Renewal falls between 30 and 36 s, so inside the hole; the end of the life does not.
const LIFETIME: u64 = 60;
const HOLE_BEGINS: Duration = Duration::from_secs(22);
const BLACK_HOLE: Duration = Duration::from_secs(30);
const SIDECARS: usize = 3;

/// SYNs of one sidecar in half a minute. Three tasks want the CA: the watch, the renewal and the reader
/// of logs. Each makes one attempt at a time and gives it 5 s, in which the kernel sends a SYN at 0, 1
/// and 3 s: six attempts of three, if nobody ever waited in between.
const MOST_SYNS_IN_THE_HOLE: u64 = 3 * 6 * 3;

/// One connection for the renewal, one for the watch, that of the new SVID's watch, one that was on
/// its way when the hole was filled, and reads of the log.
const MOST_SYNS_AFTER_IT: u64 = 8;

#[tokio::test]
async fn black_hole_towards_the_ca_is_answered_with_few_attempts_and_no_stampede() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let mut sidecars = Vec::new();
    let began = Instant::now();
    for number in 0..SIDECARS {
        sidecars.push(mesh.workload(&format!("sidecar-{number}")).await?);
    }
    let (server, client) = (&sidecars[0], &sidecars[1]);
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let get = async || http::request(&client.pod, server.v4(80), "GET", "/page").await;
    ensure!(get().await?.status == 200, "the mesh does not work to begin with");
    let mut serials = Vec::new();
    for sidecar in &sidecars {
        serials.push(serial(sidecar).await?);
    }
    sleep((began + HOLE_BEGINS).saturating_duration_since(Instant::now())).await;

    let all: Vec<_> = sidecars.iter().flat_map(|sidecar| sidecar.addresses().to_vec()).collect();
    let hole = Hole::dig(mesh.ca.pod(), &all, mesh.dir()).await?;
    let end = Instant::now() + BLACK_HOLE;
    while Instant::now() < end {
        ensure!(get().await?.status == 200, "what is known is not served on");
        sleep(Duration::from_millis(100)).await;
    }
    for (sidecar, before) in sidecars.iter().zip(&serials) {
        ensure!(serial(sidecar).await? == *before, "renewed through the hole");
        let renewed = sidecar.metrics().await?;
        let attempts = renewed.sum("myelin_renewals_total", &[]);
        ensure!(attempts >= 2.0, "{}: nobody tried to renew", sidecar.spec.name);
    }
    let tried = hole.tried().await?;
    ensure!(tried <= MOST_SYNS_IN_THE_HOLE * SIDECARS as u64, "{tried} SYNs in the hole");

    hole.fill().await?;
    for (sidecar, before) in sidecars.iter().zip(&serials) {
        eventually("renewed after the hole", Duration::from_secs(20), async || {
            Ok(serial(sidecar).await? != *before)
        })
        .await?;
    }
    let tried = hole.tried().await?;
    ensure!(tried <= MOST_SYNS_AFTER_IT * SIDECARS as u64, "{tried} SYNs after the hole");
    ensure!(get().await?.status == 200, "the mesh does not work after the hole");
    mesh.demand_clean_wire().await.map(drop)
}
