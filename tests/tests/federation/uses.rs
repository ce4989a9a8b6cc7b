//! A workload of one domain calls one of the other and back; what was removed ends.
//!
//! Never: a restart of anybody.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::stage::{B, PORT, WITHDRAWN_WITHIN, call, federate, federated, holds, prepare, refused};

#[tokio::test]
async fn workloads_of_two_domains_call_each_other_and_a_removal_ends_it() -> Result<()> {
    let Some(stage) = federated().await? else { return Ok(()) };
    let (a, b) = (&stage.a, &stage.b);
    // There and back, over both families.
    for (from, to) in [(a, b), (b, a)] {
        for address in [to.v4(PORT), to.v6(PORT)] {
            drop(call(from, to, address).await?);
        }
    }
    let (mut dialled, mut served) = call(a, b, b.v4(PORT)).await?;

    let said = stage.mesh.ca.operate(&["federation", "remove", "--trust-domain", B]).await?;
    ensure!(said.contains("no longer"), "{said}");
    let ends = timeout(WITHDRAWN_WITHIN, async {
        let (mut one, mut two) = ([0; 1], [0; 1]);
        tokio::join!(dialled.read(&mut one), served.read(&mut two))
    });
    let (at_a, at_b) = ends.await.context("the use still runs")?;
    ensure!(at_a.is_err() && at_b.is_err(), "cut, not ended: {at_a:?} {at_b:?}");
    a.outcome("outbound", "withdrawn", 1.0).await?;
    holds(a, 0.0).await?;
    // Neither a recycled connection nor a new one gets through, in either direction.
    refused(a, b.v4(PORT)).await?;
    a.outcome("outbound", "wrong_trust_domain", 1.0).await?;
    refused(b, a.v4(PORT)).await?;
    a.outcome("inbound", "wrong_trust_domain", 1.0).await?;

    // The twin: federated again, and it goes on without a restart.
    federate(&stage.mesh, &stage.mesh.ca, B, &stage.b_ca).await?;
    holds(a, 1.0).await?;
    drop(call(a, b, b.v4(PORT)).await?);
    drop(call(b, a, a.v4(PORT)).await?);
    stage.mesh.demand_clean_wire().await?;
    Ok(())
}

#[tokio::test]
async fn without_a_federation_nobody_gets_across() -> Result<()> {
    let Some(stage) = prepare().await? else { return Ok(()) };
    let (a, b) = (&stage.a, &stage.b);
    refused(a, b.v4(PORT)).await?;
    a.outcome("outbound", "wrong_trust_domain", 1.0).await?;
    refused(b, a.v4(PORT)).await?;
    b.outcome("outbound", "wrong_trust_domain", 1.0).await?;
    // One way is not both: `a` now believes `b`, but `b` believes nobody.
    federate(&stage.mesh, &stage.mesh.ca, B, &stage.b_ca).await?;
    holds(a, 1.0).await?;
    refused(a, b.v4(PORT)).await?;
    b.outcome("inbound", "wrong_trust_domain", 1.0).await?;
    Ok(())
}
