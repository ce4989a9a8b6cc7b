//! PostgreSQL without TLS of its own, and its clients psql and pgbench.
//!
//! Never: data that outlives the test, or a sync to disk.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::Result;
use myelin_lab::{Command, Pod, Proc};

use super::LOOPBACK_V4;
use crate::binaries;
use crate::mesh::subdir;
use crate::programs::{LIMIT, listens, output, user};

const PACKAGE: &str = "postgresql";
pub(crate) const PORT: u16 = 5432;

#[derive(Debug)]
pub struct Postgres {
    process: Proc,
}

impl Postgres {
    pub async fn start(pod: &Pod, dir: &Path) -> Result<Self> {
        let dir = subdir(dir, &format!("postgres-{}", pod.name()))?;
        let (uid, gid) = user("postgres")?;
        chown(&dir, Some(uid), Some(gid))?;
        let data = dir.join("data");
        let initdb = pod
            .command(binaries::installed("initdb", PACKAGE)?)
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir(&dir)
            .identity(uid, gid);
        output(initdb, LIMIT).await?;
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all all trust\n")?;
        let process = pod
            .command(binaries::installed("postgres", PACKAGE)?)
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=*", "-c", "fsync=off", "-c", "ssl=off"])
            .args(["-c", "max_connections=200"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", dir.display()))
            .current_dir(&dir)
            .identity(uid, gid)
            .spawn()?;
        listens(pod, LOOPBACK_V4, PORT).await?;
        Ok(Self { process })
    }

    pub fn process(&self) -> &Proc {
        &self.process
    }

    /// psql that runs one statement.
    pub fn psql(client: &Pod, server: IpAddr, sslmode: &str, statement: &str) -> Result<Command> {
        let command = client.command(binaries::installed("psql", PACKAGE)?).args([
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            "-d",
        ]);
        Ok(command.arg(conninfo(server, sslmode)))
    }

    pub fn pgbench(client: &Pod, server: IpAddr, sslmode: &str, args: &[&str]) -> Result<Command> {
        let command = client.command(binaries::installed("pgbench", PACKAGE)?).args(args);
        Ok(command
            .env("PGHOST", server.to_string())
            .env("PGUSER", "postgres")
            .env("PGSSLMODE", sslmode)
            .env("PGCONNECT_TIMEOUT", "20")
            .arg("postgres"))
    }
}

fn conninfo(server: IpAddr, sslmode: &str) -> String {
    format!("host={server} user=postgres dbname=postgres sslmode={sslmode} connect_timeout=20")
}
