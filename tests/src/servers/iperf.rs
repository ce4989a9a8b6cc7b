//! iperf3: bulk in both directions, with a control connection beside.
//!
//! Never: a judgement about speed.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use anyhow::Result;
use myelin_lab::{Command, Pod, Proc};

use crate::binaries;
use crate::programs::LIMIT;

pub(crate) const PORT: u16 = 5201;

#[derive(Debug)]
pub struct Iperf {
    _process: Proc,
}

impl Iperf {
    pub async fn start(pod: &Pod) -> Result<Self> {
        let process = pod
            .command(binaries::installed("iperf3", "iperf3")?)
            .args(["-s", "--forceflush", "-p", &PORT.to_string()])
            .spawn()?;
        process.wait_line("Server listening", LIMIT).await?;
        Ok(Self { _process: process })
    }

    /// A client that moves `bytes`; `word` crosses the control connection.
    pub fn client(client: &Pod, server: IpAddr, bytes: u64, word: &str) -> Result<Command> {
        let command = client.command(binaries::installed("iperf3", "iperf3")?);
        Ok(command
            .args(["-c", &server.to_string(), "-p", &PORT.to_string(), "-n", &bytes.to_string()])
            .args(["--json", "--extra-data", word, "--connect-timeout", "20000"]))
    }
}
