//! Probes in strict mode: the kubelet, which has no SVID, asks the sidecar's probe port, and the
//! workload's own ports take no plaintext (T32).
//!
//! Never: a probe that the sidecar answers out of its own knowledge.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::servers::Nginx;
use myelin_tests::workload::OPS_PORT;
use myelin_tests::{Mesh, Options, Spec, http};

const PROBE_PORT: u16 = 15_021;

const PROBES: &str = "\
[[probe]]\ncontainer = \"web\"\nkind = \"liveness\"\naction = \"http\"\nport = 80\npath = \"/page\"\n\
[[probe]]\ncontainer = \"web\"\nkind = \"readiness\"\naction = \"http\"\nport = 80\npath = \"/absent\"\n\
[[probe]]\ncontainer = \"web\"\nkind = \"startup\"\naction = \"tcp\"\nport = 80\n\
[[probe]]\ncontainer = \"db\"\nkind = \"startup\"\naction = \"tcp\"\nport = 81\n";

#[tokio::test]
async fn probes_pass_and_fail_with_the_workload_whose_own_ports_take_no_plaintext() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let mut spec = Spec::new("server").tables(PROBES);
    spec.intercept = ["--probe-port", "15021"].map(str::to_owned).to_vec();
    let server = mesh.workload_of(spec).await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    // As the kubelet does, it asks the pod's address from outside of the pod.
    let kubelet = mesh.pod("kubelet")?;
    for own in [server.v4(PROBE_PORT), server.v6(PROBE_PORT)] {
        for (path, expected) in [
            ("/probe/web/liveness", 200),
            ("/probe/web/readiness", 404),
            ("/probe/web/startup", 200),
            ("/probe/db/startup", 502),
            ("/probe/db/liveness", 404),
            ("/page", 404),
        ] {
            let answer = http::request(&kubelet, own, "GET", path).await?;
            ensure!(answer.status == expected, "{own}{path}: {answer:?}");
            ensure!(answer.body.is_empty(), "more than a status was told: {answer:?}");
        }
    }
    // Strict as ever: the very page that the probe sees is not to be had in plaintext.
    for port in [server.v4(80), server.v6(80)] {
        let plain = http::request(&kubelet, port, "GET", "/page").await;
        ensure!(plain.is_err(), "plaintext was answered: {plain:?}");
    }
    server.outcome("inbound", "plaintext_refused", 2.0).await?;
    // A workload that fails, fails its probes.
    drop(nginx);
    for path in ["/probe/web/liveness", "/probe/web/startup"] {
        let answer = http::request(&kubelet, server.v4(PROBE_PORT), "GET", path).await?;
        ensure!(answer.status == 502, "{path}: {answer:?}");
    }
    let metrics = server.metrics().await?;
    let passed = metrics.sum("myelin_probes_total", &[("outcome", "passed")]);
    ensure!(passed >= 4.0, "{passed} probes passed");
    ensure!(mesh.watch.report().await?.canary_hits() == 0, "the page crossed the wire");
    Ok(())
}

/// Where nothing is probed, the port is a workload's like any other.
#[tokio::test]
async fn without_probes_the_probe_port_takes_no_plaintext() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let server = mesh.workload_of(Spec::new("server")).await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), PROBE_PORT).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let stranger = mesh.pod("stranger")?;
    let plain = http::request(&stranger, server.v4(PROBE_PORT), "GET", "/page").await;
    ensure!(plain.is_err(), "plaintext was answered: {plain:?}");
    server.outcome("inbound", "plaintext_refused", 1.0).await?;
    // The twin: the ops port is the sidecar's whatever is configured.
    let ops = http::request(&stranger, server.v4(OPS_PORT), "GET", "/live").await?;
    ensure!(ops.status == 200, "{ops:?}");
    ensure!(mesh.watch.report().await?.canary_hits() == 0, "the page crossed the wire");
    Ok(())
}
