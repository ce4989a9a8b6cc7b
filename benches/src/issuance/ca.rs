//! The CA under measurement: which program, on which data directory, with which ports. Called by every
//! measurement.
//!
//! Never: an option that an operator would not have it run with.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::args::Options;
pub(super) use crate::process::Memory;
use crate::process::{Process, free_port, program};

pub(crate) const TRUST_DOMAIN: &str = "bench.test";

pub(super) struct Ca {
    process: Process,
    pub(super) grpc: SocketAddr,
}

impl Ca {
    /// Starts it on this data directory, and waits until it is ready.
    pub(super) async fn start(options: &Options, data: &Path) -> Result<Self> {
        Self::start_on(None, options, data).await
    }

    /// The same on one CPU, which it then has for itself if the callers keep off.
    pub(super) async fn start_on(
        only: Option<usize>,
        options: &Options,
        data: &Path,
    ) -> Result<Self> {
        let (grpc, ops) = (free_port()?, free_port()?);
        let mut command = Command::new(program(options.ca.as_ref(), "myelin-ca", "--ca")?);
        command.args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"]).arg(data).args([
            "--listen",
            &grpc.to_string(),
            "--ops-listen",
            &ops.to_string(),
        ]);
        let log = data.with_extension("log");
        let process = Process::start(command, only, &log, (ops, "/readyz")).await?;
        Ok(Self { process, grpc })
    }

    /// From the start of the process until `/readyz` said so.
    pub(super) fn ready_after(&self) -> Duration {
        self.process.ready_after
    }

    /// User and system time so far, all threads.
    pub(super) fn cpu(&self) -> f64 {
        self.process.cpu()
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        self.process.memory()
    }

    /// Ends it as an operator would.
    pub(super) async fn stop(self) -> Result<()> {
        self.process.end(Signal::SIGTERM).await
    }

    /// Ends it without a word (SIGKILL).
    pub(super) async fn cut(self) -> Result<()> {
        self.process.end(Signal::SIGKILL).await
    }
}
