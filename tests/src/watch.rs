//! The eye on the wire: a capture with one random canary, and the one sentence that every suite
//! wants to say about it.
//!
//! Never: calls a wire clean that it has not seen whole.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use myelin_lab::Lab;
use myelin_lab::wire::{Capture, CaptureOptions, WireReport};

use crate::ca;
use crate::programs::random_word;

/// A running capture.
#[derive(Debug)]
pub struct Watch {
    capture: Capture,
    canary: String,
    /// Where CAs of this wire serve their public logs.
    logs: Mutex<Vec<IpAddr>>,
}

impl Watch {
    pub fn start(lab: &Lab, keep_bytes: usize) -> Result<Self> {
        let canary = format!("canary{}", random_word()?);
        let options = CaptureOptions::canaries([canary.as_str()]).keep(keep_bytes);
        Ok(Self { capture: Capture::start(lab, options)?, canary, logs: Mutex::default() })
    }

    /// The word that the workloads say to each other and nobody may read.
    pub fn canary(&self) -> &str {
        &self.canary
    }

    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    pub async fn report(&self) -> Result<WireReport> {
        self.capture.report().await
    }

    /// A CA lives here, whose logs sidecars read in plaintext: they are public, and believed for their
    /// signatures alone.
    pub fn has_logs_at(&self, addresses: &[IpAddr]) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).extend(addresses);
    }

    /// Only TLS 1.3 crossed the wire, but for the CAs' logs, and nobody could read the canary.
    pub async fn demand_clean(&self) -> Result<WireReport> {
        self.demand_clean_but(|_| false).await
    }

    /// The same, but plaintext towards these servers is part of the test.
    pub async fn demand_clean_but(
        &self,
        plain_is_meant: impl Fn(SocketAddr) -> bool,
    ) -> Result<WireReport> {
        let report = self.report().await?;
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_log = |to: SocketAddr| to.port() == ca::OPS_PORT && logs.contains(&to.ip());
        let objections = report.objections(|server| is_log(server) || plain_is_meant(server));
        if !objections.is_empty() {
            bail!("the wire is not clean: {}", objections.join("; "));
        }
        ensure!(report.tls13_flows > 0, "no TLS crossed the wire: nothing was tested: {report:?}");
        Ok(report)
    }
}
