//! Two CA replicas on one real etcd, each a process in a pod of its own, reached by real sidecars:
//! etcd speaks TLS and asks for client certificates; a replica is killed, and comes back; the root is
//! replaced meanwhile.
//!
//! Never: a sidecar that is restarted.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout, reason = "the figures that a reader of the report wants")]

mod etcd;
mod ladder;

use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_tests::ca::Ca;
use myelin_tests::programs::{LIMIT, eventually, failure};
use myelin_tests::servers::Nginx;
use myelin_tests::workload::{Spec, Workload};
use myelin_tests::{Mesh, Options, binaries, http};
use tokio::time::sleep;

use etcd::Etcd;

const TRUST_DOMAIN: &str = "shared.test";
/// Two renewals of each sidecar fit into what the test waits for.
const LIFETIME: Duration = Duration::from_secs(20);

/// Two replicas that share a store and a seal key.
struct Replicas {
    first: Ca,
    second: Ca,
    _etcd: Etcd,
}

impl Replicas {
    async fn start(mesh: &Mesh) -> Result<Self> {
        let etcd = Etcd::start(mesh.pod("etcd")?, &mesh.subdir("etcd")?).await?;
        let seal_key = mesh.dir().join("shared-seal.key");
        let mut replicas = Vec::new();
        for name in ["ca-one", "ca-two"] {
            let dir = mesh.subdir(name)?;
            let mut flags = etcd.flags();
            flags.push(format!("--seal-key-file={}", seal_key.display()));
            flags.push(format!("--max-lifetime={}s", LIFETIME.as_secs()));
            let pod = mesh.pod(name)?;
            replicas.push(Ca::start_with(pod, TRUST_DOMAIN, &dir, LIFETIME, &flags).await?);
        }
        let [first, second] = <[Ca; 2]>::try_from(replicas).unwrap();
        Ok(Self { first, second, _etcd: etcd })
    }

    /// A ready workload that knows both, the first one first.
    async fn workload(&self, mesh: &Mesh, name: &str) -> Result<Workload> {
        let mut spec = Spec::new(name);
        spec.trust_domain = TRUST_DOMAIN.to_owned();
        spec.more_cas = vec![self.second.endpoint()];
        let workload = mesh.prepare_in(mesh.pod(name)?, &self.first, spec).await?;
        workload.run().await?;
        Ok(workload)
    }
}

async fn not_after(of: &Workload) -> Result<f64> {
    Ok(of.metrics().await?.sum("myelin_svid_not_after_seconds", &[]))
}

/// Requests go on without one failure until both have renewed twice.
async fn served_through_renewals(client: &Workload, server: &Workload) -> Result<()> {
    let life = LIFETIME.as_secs_f64();
    let until = not_after(client).await?.max(not_after(server).await?) + life * 0.75;
    let mut served = 0;
    while not_after(client).await?.min(not_after(server).await?) < until {
        let page = http::request(&client.pod, server.v4(80), "GET", "/page").await?;
        ensure!(page.status == 200, "request {served} failed: {}", page.status);
        served += 1;
        ensure!(served < 2_000, "nobody renews");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn sidecars_go_over_to_another_replica_when_theirs_is_killed() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let replicas = Replicas::start(&mesh).await?;
    let server = replicas.workload(&mesh, "server").await?;
    let client = replicas.workload(&mesh, "client").await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    let pids = (client.pid(), server.pid());
    http::request(&client.pod, server.v4(80), "GET", "/page").await?;

    replicas.first.kill9();
    served_through_renewals(&client, &server).await?;

    // What is withdrawn at one replica reaches sidecars wherever they are.
    replicas.first.up().await?;
    let id = client.spec.id();
    replicas.first.operate(&["revoke", "--id", &id, "--reason", "a test of replicas"]).await?;
    eventually("the revocation reaches the server's sidecar", LIMIT, async || {
        Ok(server.metrics().await?.sum("myelin_deny_list_epoch", &[]) >= 1.0)
    })
    .await?;
    let refused = http::request(&client.pod, server.v4(80), "GET", "/page").await;
    ensure!(refused.is_err(), "a revoked client was served");
    ensure!((client.pid(), server.pid()) == pids, "a sidecar was restarted");
    Ok(())
}

#[tokio::test]
async fn replica_that_etcd_does_not_let_in_says_so_and_does_not_start() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let etcd = Etcd::start(mesh.pod("etcd")?, &mesh.subdir("etcd")?).await?;
    let known =
        |flag: &String| !["--etcd-cert", "--etcd-key"].iter().any(|it| flag.starts_with(it));
    let pod = mesh.pod("stranger")?;
    let serve = pod
        .command(binaries::ca()?)
        .args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"])
        .arg(mesh.dir().join("stranger"))
        .args(etcd.flags().into_iter().filter(known));
    let said = failure(serve, LIMIT).await?;
    ensure!(said.contains("etcd endpoints answered"), "{said}");
    ensure!(said.contains("--etcd-cert"), "{said}");
    Ok(())
}
