//! The other domain replaces its root: our CA fetches each of its bundles by itself, and calls go both
//! ways on every rung.
//!
//! Never: a bundle that is carried by hand, or a fetch that an operator asks for.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::programs::eventually;
use serde_json::Value;

use super::stage::{B, PORT, Stage, call, federated_with};

/// Two renewals of the other domain's SVIDs.
const SOME_LIVES: Duration = Duration::from_secs(60);

impl Stage {
    async fn at_b(&self, what: &str) -> Result<Value> {
        self.at_b_with(&[what]).await
    }

    async fn at_b_with(&self, what: &[&str]) -> Result<Value> {
        let said = self.b_ca.operate(&[&["rotate"], what, &["--json"]].concat()).await?;
        serde_json::from_str(&said).with_context(|| said)
    }

    async fn acknowledged_at_b(&self) -> Result<()> {
        eventually("everybody in the other domain has acknowledged", SOME_LIVES, async || {
            let seen = self.at_b("status").await?;
            ensure!(seen["outstanding"] == 0 && seen["lagging_replicas"] == Value::Array(vec![]));
            Ok(true)
        })
        .await
    }

    /// Our sidecar holds the other domain's bundle with this sequence number, fetched by the hint.
    async fn a_holds(&self, sequence: u64) -> Result<()> {
        let words = format!("sequence {sequence}");
        eventually(&words, SOME_LIVES, async || {
            let listed = self.mesh.ca.operate(&["federation", "list"]).await?;
            ensure!(listed.contains(B) && listed.contains(&words), "{listed}");
            Ok(true)
        })
        .await?;
        let told = "bundles of foreign trust domains taken over";
        eventually("our sidecar is told", SOME_LIVES, async || {
            Ok(self.a.log()?.matches(told).count() as u64 >= sequence)
        })
        .await
    }

    async fn both_ways(&self, when: &str) -> Result<()> {
        drop(call(&self.a, &self.b, self.b.v4(PORT)).await.with_context(|| format!("{when}: ->"))?);
        drop(call(&self.b, &self.a, self.a.v4(PORT)).await.with_context(|| format!("{when}: <-"))?);
        Ok(())
    }
}

#[tokio::test]
async fn a_rotation_in_the_other_domain_reaches_us_and_breaks_no_call() -> Result<()> {
    let hint = ["--federation-refresh-hint", "8s"];
    let life = Duration::from_secs(20);
    let Some(stage) = federated_with(life, &hint).await? else { return Ok(()) };
    stage.both_ways("before").await?;
    stage.at_b("prepare").await?;
    // We cannot acknowledge, so the move waits until somebody says that we have fetched.
    let waited_for = format!("trust-domain/{}", stage.mesh.ca.trust_domain());
    let status = stage.at_b("status").await?;
    ensure!(status["federated"] == Value::from(vec![waited_for.clone()]), "{status}");
    let refused = stage.b_ca.operate(&["rotate", "activate"]).await.unwrap_err().to_string();
    ensure!(refused.contains(&waited_for) && refused.contains("--fetched"), "{refused}");
    stage.a_holds(2).await?;
    stage.both_ways("both are trusted").await?;
    stage.acknowledged_at_b().await?;
    stage.at_b_with(&["activate", "--fetched", stage.mesh.ca.trust_domain()]).await?;
    stage.acknowledged_at_b().await?;
    // The other workload's SVID hangs under the new root now.
    stage.both_ways("the new root issues").await?;
    stage.at_b("retire").await?;
    stage.a_holds(3).await?;
    stage.both_ways("the old root is gone").await
}
