//! aiosmtpd, which prints each mail that it takes, and swaks, which sends one. SMTP servers speak
//! first.
//!
//! Never: a mail that leaves the test.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use anyhow::Result;
use myelin_lab::{Command, Pod, Proc};

use super::{LOOPBACK_V4, LOOPBACK_V6};
use crate::binaries;
use crate::programs::{LIMIT, listens};

pub(crate) const PORT: u16 = 25;

/// One process for each family: Python keeps them apart.
#[derive(Debug)]
pub struct Smtp {
    processes: [Proc; 2],
}

impl Smtp {
    pub async fn start(pod: &Pod) -> Result<Self> {
        let serve = |address: &str| -> Result<Proc> {
            pod.command(binaries::installed("aiosmtpd", "python3-aiosmtpd")?)
                .args(["-n", "-l", &format!("{address}:{PORT}")])
                .args(["-c", "aiosmtpd.handlers.Debugging", "stdout"])
                .env("PYTHONUNBUFFERED", "1")
                .spawn()
        };
        let processes = [serve("0.0.0.0")?, serve("::")?];
        listens(pod, LOOPBACK_V4, PORT).await?;
        listens(pod, LOOPBACK_V6, PORT).await?;
        Ok(Self { processes })
    }

    /// swaks that sends one mail with this body.
    pub fn mail(client: &Pod, server: IpAddr, body: &str) -> Result<Command> {
        let command = client.command(binaries::installed("swaks", "swaks")?);
        Ok(command
            .args(["--to", "you@mesh.test", "--from", "me@mesh.test", "--helo", "client.mesh.test"])
            .args(["--timeout", "20", "--body", body, "--server", &server.to_string()])
            .args(["--port", &PORT.to_string()]))
    }

    /// Waits until a mail with this in it has arrived.
    pub async fn took(&self, server: IpAddr, body: &str) -> Result<()> {
        let process = &self.processes[usize::from(server.is_ipv6())];
        process.wait_line(body, LIMIT).await.map(drop)
    }
}
