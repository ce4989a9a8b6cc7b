//! Redis.
//!
//! Never: a file on disk.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use myelin_lab::{Command, Pod, Proc};

use super::LOOPBACK_V4;
use crate::binaries;
use crate::programs::listens;

pub(crate) const PORT: u16 = 6379;

#[derive(Debug)]
pub struct Redis {
    process: Proc,
}

impl Redis {
    pub async fn start(pod: &Pod, dir: &Path) -> Result<Self> {
        let process = pod
            .command(binaries::installed("redis-server", "redis-server")?)
            .args(["--port", &PORT.to_string(), "--bind", "*", "-::*", "--protected-mode", "no"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(dir)
            .spawn()?;
        listens(pod, LOOPBACK_V4, PORT).await?;
        Ok(Self { process })
    }

    pub fn process(&self) -> &Proc {
        &self.process
    }

    pub fn client(client: &Pod, server: IpAddr, args: &[&str]) -> Result<Command> {
        let command = client.command(binaries::installed("redis-cli", "redis-tools")?);
        Ok(command.args(["-e", "-h", &server.to_string()]).args(args))
    }

    pub fn benchmark(client: &Pod, server: IpAddr, args: &[&str]) -> Result<Command> {
        let command = client.command(binaries::installed("redis-benchmark", "redis-tools")?);
        Ok(command.args(["-h", &server.to_string(), "-q"]).args(args))
    }
}
