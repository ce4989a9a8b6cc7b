//! What two workloads do with each other: one scene for each kind of server, over both families,
//! with a canary in what they say. The traffic suite plays them in the mesh, its control without.
//! The server is started before, the clients here are the ones that everybody uses.
//!
//! Never: knows whether there is a mesh.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use myelin_lab::Pod;

use crate::binaries;
use crate::programs::{LIMIT, output};
use crate::servers::{Iperf, MariaDb, Nginx, Postgres, Redis, Smtp};

/// Of bulk, so much that buffers fill in every direction.
const BULK_BYTES: u64 = 64 * 1024 * 1024;

/// curl as everybody uses it.
pub fn curl(client: &Pod, args: &[&str], url: &str) -> Result<myelin_lab::Command> {
    let command = client.command(binaries::installed("curl", "curl")?);
    Ok(command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]).args(args).arg(url))
}

/// nginx and curl: a page down, headers up, a hundred requests on one connection.
pub async fn http(client: &Pod, server: &Pod, dir: &Path, canary: &str) -> Result<()> {
    let nginx = Nginx::start(server, dir, 80).await?;
    nginx.page("page", canary.repeat(300).as_bytes())?;
    for address in server.addresses() {
        let url = format!("http://{}/page", SocketAddr::new(*address, 80));
        let header = format!("X-Word: {canary}");
        let said = output(curl(client, &["-H", &header], &url)?, LIMIT).await?;
        ensure!(said == canary.repeat(300), "{url} came back changed");
        let many = format!("{url}?[1-100]");
        let said =
            output(curl(client, &["-o", "/dev/null", "-w", "%{num_connects}\n"], &many)?, LIMIT)
                .await?;
        let connects = said.lines().filter(|line| *line == "1").count();
        ensure!(said.lines().count() == 100 && connects == 1, "{url}: keep-alive broke: {said}");
    }
    Ok(())
}

/// PostgreSQL: a table written and read, then pgbench, with TLS off and with `prefer`.
pub async fn postgres(client: &Pod, server: &Pod, dir: &Path, canary: &str) -> Result<()> {
    let _postgres = Postgres::start(server, dir).await?;
    for (round, address) in server.addresses().iter().enumerate() {
        for sslmode in ["disable", "prefer"] {
            let statement = format!(
                "create table t_{round}_{sslmode} as select '{canary}'::text as word; \
                 select word from t_{round}_{sslmode}"
            );
            let said =
                output(Postgres::psql(client, *address, sslmode, &statement)?, LIMIT).await?;
            ensure!(said.contains(canary), "psql over {address} ({sslmode}) said {said:?}");
            let fill = Postgres::pgbench(client, *address, sslmode, &["-i", "-q", "-s", "1"])?;
            output(fill, LIMIT).await?;
            let run = ["-c", "4", "-j", "2", "-t", "50", "-n"];
            let said = output(Postgres::pgbench(client, *address, sslmode, &run)?, LIMIT).await?;
            ensure!(said.contains("number of failed transactions: 0"), "pgbench: {said}");
        }
    }
    Ok(())
}

/// MariaDB, whose server speaks first.
pub async fn mariadb(client: &Pod, server: &Pod, dir: &Path, canary: &str) -> Result<()> {
    let _mariadb = MariaDb::start(server, dir).await?;
    for (round, address) in server.addresses().iter().enumerate() {
        let statement = format!(
            "create database d{round}; create table d{round}.t (word text); \
             insert into d{round}.t values ('{canary}'); select word from d{round}.t"
        );
        let said = output(MariaDb::client(client, *address, &statement)?, LIMIT).await?;
        ensure!(said.contains(canary), "MariaDB over {address} said {said:?}");
    }
    Ok(())
}

/// Redis: a value written and read, then its benchmark with pipelining.
pub async fn redis(client: &Pod, server: &Pod, dir: &Path, canary: &str) -> Result<()> {
    let _redis = Redis::start(server, dir).await?;
    for address in server.addresses() {
        let set = Redis::client(client, *address, &["set", "word", canary])?;
        ensure!(output(set, LIMIT).await? == "OK", "redis did not take the value");
        let get = output(Redis::client(client, *address, &["get", "word"])?, LIMIT).await?;
        ensure!(get == canary, "redis over {address} said {get:?}");
        let args = ["-n", "20000", "-c", "20", "-P", "8", "-d", "512", "-t", "set,get"];
        output(Redis::benchmark(client, *address, &args)?, LIMIT).await?;
    }
    Ok(())
}

/// SMTP, whose server speaks first and whose client waits for each answer.
pub async fn smtp(client: &Pod, server: &Pod, canary: &str) -> Result<()> {
    let smtp = Smtp::start(server).await?;
    for address in server.addresses() {
        let family = if address.is_ipv6() { "six" } else { "four" };
        let body = format!("{family} {canary}");
        output(Smtp::mail(client, *address, &body)?, LIMIT).await?;
        smtp.took(*address, &body).await?;
    }
    Ok(())
}

/// iperf3: bulk one way, then the other, with several connections. Not both ways at once: iperf3 takes
/// its connections for accepted in the order in which it made them, which no proxy promises, and then
/// both ends send on one connection, and neither reads.
pub async fn iperf(client: &Pod, server: &Pod, canary: &str) -> Result<()> {
    let _iperf = Iperf::start(server).await?;
    for address in server.addresses() {
        for way in [&["-P", "2"][..], &["-P", "2", "--reverse"]] {
            let transfer = Iperf::client(client, *address, BULK_BYTES, canary)?.args(way);
            let said = output(transfer, LIMIT).await?;
            ensure!(!said.contains("\"error\""), "iperf3 over {address}: {said}");
        }
    }
    Ok(())
}
