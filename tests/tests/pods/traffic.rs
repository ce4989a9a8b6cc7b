//! A client and a server: their traffic is secured, nobody on the bridge reads it, and who has no
//! sidecar is refused.
//!
//! Never: a claim about the wire without its control.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_fake_api::Resource;
use myelin_tests::pods::{Cluster, NAMESPACE, OUTSIDE, SYSTEM};
use myelin_tests::programs::{LIMIT, eventually};

use crate::{PORT, endpoint};

const TRUST_BUNDLE: &str = "myelin-trust-bundle";

#[tokio::test]
async fn an_injected_client_is_served_in_secret_and_an_unmeshed_one_is_refused() -> Result<()> {
    let Some(mut cluster) = Cluster::start().await? else { return Ok(()) };
    let server = cluster.play(&cluster.pod("server", &["serve", &PORT.to_string()])).await?;
    let at = endpoint(&server);
    let client = cluster.play(&cluster.pod("client", &["get", &at, "/word"])).await?;
    let ended = cluster.complete(&client).await?;
    ensure!(ended.codes()["app"] == 0, "{}", client.container("app")?.last_words());
    cluster.demand_clean_wire().await?;
    let metrics = cluster.metrics(&server).await?;
    ensure!(metrics.outcome("inbound", "completed") >= 1.0, "{:?}", metrics.outcomes());

    // The twin: a pod that nobody has injected hears nothing.
    let stranger = cluster.play_outside(&cluster.pod("stranger", &["get", &at, "/word"])).await?;
    let app = stranger.container("app")?;
    let code = app.ended(&cluster.engine, LIMIT).await?;
    ensure!(code != 0, "a pod without a sidecar was served: {}", app.last_words());
    let metrics = cluster.metrics(&server).await?;
    ensure!(metrics.outcome("inbound", "plaintext_refused") >= 1.0, "{:?}", metrics.outcomes());
    ensure!(cluster.watch.report().await?.canary_hits() == 0, "the word was readable");

    // The control: the same programs without a mesh, and everybody on the bridge reads the word.
    let server = cluster.pod("bare-server", &["serve", &PORT.to_string()]);
    let server = cluster.play_outside(&server).await?;
    let at = endpoint(&server);
    let client = cluster.play_outside(&cluster.pod("bare-client", &["get", &at, "/word"])).await?;
    let ended = cluster.complete(&client).await?;
    ensure!(ended.codes()["app"] == 0, "{}", client.container("app")?.last_words());
    ensure!(cluster.watch.report().await?.canary_hits() > 0, "the capture reads nothing at all");

    // Who verifies certificates in a meshed namespace finds the roots there, and only there.
    let bundle = |namespace| {
        let found = cluster.api.read(&Resource::core("configmaps"), namespace, TRUST_BUNDLE)?;
        Some(found["data"]["bundle.pem"].as_str()?.to_owned())
    };
    let given = async || Ok(bundle(NAMESPACE).is_some());
    eventually("the bundle is in the namespace", LIMIT, given).await?;
    ensure!(bundle(NAMESPACE) == bundle(SYSTEM), "another bundle was given");
    ensure!(bundle(OUTSIDE).is_none(), "an unmeshed namespace was given the bundle");

    // CA and controller end by themselves when they are told to.
    let ended = cluster.stop_systems().await?;
    let fine = ended.iter().zip(["controller", "ca"]).all(|(ended, name)| ended.is(&[(name, 0)]));
    ensure!(fine && ended.len() == 2, "{ended:?}");
    Ok(())
}
