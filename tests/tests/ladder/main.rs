//! The root is replaced while the mesh is at work: a whole ladder under traffic (T42), sidecars that
//! hear nothing, one that hangs, one that lies, one that starts again and meets a CA of before, a CA
//! that is killed at any moment, a store that somebody else has written to (T60).
//!
//! Never: a move that the test makes past the operator's command, or a sidecar that has to be
//! restarted for one.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout, reason = "the figures that a reader of the report wants")]

mod bare;
mod climbing;
mod forged;
mod killed;
mod laggards;
mod liars;
mod restarted;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::Workload;
use myelin_tests::ca::Ca;
use myelin_tests::programs::eventually;
pub(crate) use myelin_tests::running::Running;
use serde_json::Value;

/// Lives of SVIDs here: two renewals fit into what a test waits for.
pub(crate) const LIFETIME: u64 = 20;
/// Longer than every wait for renewals of such lives.
pub(crate) const SOME_LIVES: Duration = Duration::from_secs(90);
pub(crate) const PORT: u16 = 7_000;

/// `myelin-ca rotate WHAT --json`, as an operator types it.
pub(crate) async fn rotate(ca: &Ca, what: &[&str]) -> Result<Value> {
    let args: Vec<&str> = ["rotate"].iter().chain(what).chain(&["--json"]).copied().collect();
    let said = ca.operate(&args).await?;
    serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
}

/// The same, which must be refused; yields the line.
pub(crate) async fn refused(ca: &Ca, what: &[&str]) -> Result<String> {
    let args: Vec<&str> = ["rotate"].iter().chain(what).copied().collect();
    ca.refuse(&args).await
}

pub(crate) async fn status(ca: &Ca) -> Result<Value> {
    rotate(ca, &["status"]).await
}

/// Waits until everybody has acknowledged what the next move rests on.
pub(crate) async fn acknowledged(ca: &Ca) -> Result<()> {
    eventually("everybody has acknowledged", SOME_LIVES, async || {
        let seen = status(ca).await?;
        let lagging = seen["lagging_replicas"].as_array().is_none_or(Vec::is_empty);
        ensure!(seen["outstanding"] == 0 && lagging, "{seen}");
        Ok(true)
    })
    .await
}

/// The generation of the bundle that a sidecar trusts.
pub(crate) async fn generation(of: &Workload) -> Result<f64> {
    Ok(of.metrics().await?.sum("myelin_bundle_generation", &[]))
}

/// Waits until a sidecar trusts this generation or a later one.
pub(crate) async fn trusts(of: &Workload, wanted: f64) -> Result<()> {
    let what = format!("{} trusts generation {wanted}", of.spec.name);
    eventually(&what, SOME_LIVES, async || Ok(generation(of).await? >= wanted)).await
}
