//! MariaDB: a server that speaks first.
//!
//! Never: data that outlives the test, or users with passwords.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use myelin_lab::{Command, Pod, Proc};

use super::LOOPBACK_V4;
use crate::binaries;
use crate::mesh::subdir;
use crate::programs::{listens, output};

const PACKAGE: &str = "mariadb-server";
pub(crate) const PORT: u16 = 3306;

/// It writes all its system tables.
const INSTALL_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct MariaDb {
    _process: Proc,
}

impl MariaDb {
    pub async fn start(pod: &Pod, dir: &Path) -> Result<Self> {
        let dir = subdir(dir, &format!("mariadb-{}", pod.name()))?;
        let data = format!("--datadir={}/data", dir.display());
        let install = pod
            .command(binaries::installed("mariadb-install-db", PACKAGE)?)
            .args([
                "--no-defaults",
                "--skip-test-db",
                "--user=root",
                "--auth-root-authentication-method=normal",
            ])
            .arg(&data);
        output(install, INSTALL_LIMIT).await?;
        let process = pod
            .command(binaries::installed("mariadbd", PACKAGE)?)
            .args(["--no-defaults", "--user=root", "--skip-grant-tables", "--bind-address=*"])
            .args(["--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"])
            .arg(&data)
            .arg(format!("--socket={}/socket", dir.display()))
            .arg(format!("--pid-file={}/pid", dir.display()))
            .arg(format!("--port={PORT}"))
            .spawn()?;
        listens(pod, LOOPBACK_V4, PORT).await?;
        Ok(Self { _process: process })
    }

    pub fn client(client: &Pod, server: IpAddr, statement: &str) -> Result<Command> {
        let command = client.command(binaries::installed("mariadb", "mariadb-client")?);
        Ok(command
            .args(["--no-defaults", "--protocol=TCP", "--skip-ssl", "-u", "root", "-N", "-B"])
            .args(["--connect-timeout=20", "-h", &server.to_string(), "-e", statement]))
    }
}
