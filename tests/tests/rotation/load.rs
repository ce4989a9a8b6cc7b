//! T40: two minutes of twelve-second SVIDs under PostgreSQL and HTTP load.
//!
//! Never: a request that is tried again.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_lab::{Pod, Proc, Stream};
use myelin_tests::servers::{Nginx, Postgres};
use myelin_tests::{Mesh, Options, Workload, http};
use tokio::time::{Instant, sleep};

use crate::{gauge, now, serial};

const LIFETIME: u64 = 12;
const MINUTES_TWO: Duration = Duration::from_secs(120);

/// Ten lives, each ended at half to two thirds: at least so many renewals, with one to spare.
const RENEWALS: usize = 12;

/// Whether pgbench counted its transactions and none failed.
fn demand_no_failure(pgbench: &Proc) -> Result<()> {
    let said = pgbench.text(Stream::Out);
    ensure!(said.contains("number of failed transactions: 0 "), "pgbench said {said}");
    let errors = pgbench.text(Stream::Err);
    ensure!(!errors.contains("abort") && !errors.contains("error"), "pgbench said {errors}");
    Ok(())
}

/// One new connection a request, one after the other.
async fn requests(pod: &Pod, to: SocketAddr, until: Instant, canary: &str) -> Result<usize> {
    let mut served = 0;
    while Instant::now() < until {
        let page = http::request(pod, to, "GET", "/page").await;
        let page = page.with_context(|| format!("request {served} to {to}"))?;
        ensure!(page.status == 200 && page.body == canary, "request {served}: {page:?}");
        served += 1;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(served)
}

/// Watches one sidecar: which serials it had, and how much life was left at worst.
async fn watch(workload: &Workload, until: Instant) -> Result<(BTreeSet<String>, f64)> {
    let (mut serials, mut least_left) = (BTreeSet::new(), f64::MAX);
    while Instant::now() < until {
        serials.insert(serial(workload).await?);
        let left = gauge(workload, "myelin_svid_not_after_seconds").await? - now();
        least_left = least_left.min(left);
        sleep(Duration::from_millis(500)).await;
    }
    Ok((serials, least_left))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_second_svids_rotate_under_load_without_a_failed_request() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME)).await? else { return Ok(()) };
    let server = mesh.workload("server").await?;
    let client = mesh.workload("client").await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let _postgres = Postgres::start(&server.pod, mesh.dir()).await?;
    let bench = |args: &[&str]| Postgres::pgbench(&client.pod, server.pod.v4(), "disable", args);
    myelin_tests::programs::output(bench(&["-i", "-q", "-s", "1"])?, MINUTES_TWO).await?;

    // One keeps its connections for the whole time, one makes a new one for each transaction.
    let kept = bench(&["-T", "120", "-c", "2", "-n", "-R", "50"])?.spawn()?;
    let fresh = bench(&["-T", "120", "-c", "2", "-n", "-C", "-R", "10"])?.spawn()?;
    let until = Instant::now() + MINUTES_TWO;
    let (v4, v6, of_client, of_server) = tokio::join!(
        requests(&client.pod, server.v4(80), until, mesh.canary()),
        requests(&client.pod, server.v6(80), until, mesh.canary()),
        watch(&client, until),
        watch(&server, until),
    );
    let context = || format!("client: {}\nserver: {}", client.last_words(), server.last_words());
    let served = v4.with_context(context)? + v6.with_context(context)?;
    ensure!(served > 1000, "only {served} requests in two minutes");
    for pgbench in [&kept, &fresh] {
        pgbench.wait_success(MINUTES_TWO).await.with_context(context)?;
        demand_no_failure(pgbench)?;
    }
    for (name, watched) in [("client", of_client?), ("server", of_server?)] {
        let (serials, least_left) = watched;
        ensure!(serials.len() >= RENEWALS, "{name} had {} SVIDs in two minutes", serials.len());
        ensure!(least_left > 0.0, "{name} had {least_left} s left at worst");
    }
    mesh.demand_clean_wire().await.map(drop)
}
