//! Sidecars that attest with a pod's service-account token from a file (T38).
//!
//! Never: a token that the sidecar could have kept; the file changes under it.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_tests::{Mesh, Options, Spec};

use crate::cluster::{Cluster, Pod};
use crate::{attempts, says, shared, talk};

const AUDIENCE: &str = "myelin-ca/mesh.test";
const TOKEN: &str = "kubernetes_token_file = \"DIR/pod-token\"";
const WEB: Pod = Pod { namespace: "shop", account: "web", uid: "a1" };
const DB: Pod = Pod { namespace: "shop", account: "db", uid: "b2" };

fn spec(name: &str) -> Spec {
    Spec::new(name).path(&format!("/ns/shop/sa/{name}")).attests(TOKEN)
}

fn options(lifetime: u64, ca_flags: Vec<String>) -> Options {
    Options { ca_flags, ..Options::lifetime(lifetime) }
}

#[tokio::test]
async fn pods_meet_by_their_service_accounts_and_renew_with_whatever_token_is_there() -> Result<()>
{
    let dir = shared()?;
    let mut cluster = Cluster::new(dir.path())?;
    let flags = cluster.flags(&["shop"]);
    let Some(mesh) = Mesh::start(options(20, flags)).await? else { return Ok(()) };
    let web = mesh.prepare(spec("web")).await?;
    let db = mesh.prepare(spec("db")).await?;
    web.write("pod-token", &cluster.token(&WEB, AUDIENCE, 600)?)?;
    db.write("pod-token", &cluster.token(&DB, AUDIENCE, 600)?)?;
    web.run().await?;
    db.run().await?;
    talk(&web, &db).await?;
    talk(&db, &web).await?;
    ensure!(mesh.ca.said("attestor=\"kubernetes\""), "the audit line does not name the attestor");

    // The file goes away: renewals fail in their own word, what is at hand goes on.
    std::fs::remove_file(web.dir().join("pod-token"))?;
    attempts(&web, "evidence_unreadable", 1.0).await?;
    talk(&web, &db).await?;
    // The API server has another key by now, and the kubelet brings a fresh token.
    cluster.rotate()?;
    web.write("pod-token", &cluster.token(&WEB, AUDIENCE, 600)?)?;
    db.write("pod-token", &cluster.token(&DB, AUDIENCE, 600)?)?;
    attempts(&web, "renewed", 1.0).await?;
    talk(&web, &db).await?;

    // A restart in the same pod: its state directory is there, its SVID is not.
    web.kill9();
    web.run().await?;
    talk(&web, &db).await?;
    mesh.demand_clean_wire().await.map(drop)
}

#[tokio::test]
async fn a_pod_that_proves_nothing_or_too_little_never_gets_an_identity() -> Result<()> {
    let dir = shared()?;
    let cluster = Cluster::new(dir.path())?;
    let stranger = Cluster::new(shared()?.path())?;
    let flags = cluster.flags(&["shop"]);
    let Some(mesh) = Mesh::start(options(3600, flags)).await? else { return Ok(()) };
    let web = mesh.prepare(spec("web")).await?;
    let bank = Pod { namespace: "bank", account: "web", uid: "c3" };
    web.write("pod-token", &cluster.token(&WEB, "vault", 600)?)?;
    web.start()?;
    says(&web, "jwt_audience").await?;
    for (token, expected) in [
        (stranger.token(&WEB, AUDIENCE, 600)?, "jwt_key_unknown"),
        (cluster.token(&bank, AUDIENCE, 600)?, "entry_missing"),
        ("no token at all".to_owned(), "jwt_malformed"),
    ] {
        web.write("pod-token", &token)?;
        says(&web, expected).await?;
        ensure!(mesh.ca.said(expected), "no audit line with {expected}");
    }
    ensure!(!web.is_ready().await?, "ready without an identity");
    // The twin: with its own token the same sidecar gets its identity, without a restart.
    web.write("pod-token", &cluster.token(&WEB, AUDIENCE, 600)?)?;
    web.ready().await?;

    // The token copied into another pod, with another host key.
    let thief = mesh.prepare(Spec { name: "thief".to_owned(), ..spec("web") }).await?;
    thief.write("pod-token", &cluster.token(&WEB, AUDIENCE, 600)?)?;
    thief.start()?;
    says(&thief, "jwt_replayed").await?;
    ensure!(!thief.is_ready().await?, "a copied token was good");
    Ok(())
}
