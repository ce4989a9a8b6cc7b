//! What a federation does not grant: ports that name nobody, sidecars that were not told, and names
//! of our own domain under somebody else's root.
//!
//! Never: a use that both sides agreed to; `uses` has those.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_identity::bundle::TrustBundle;
use myelin_identity::verify::PeerVerifier;
use myelin_lab::Pod;
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, Forge};
use myelin_tests::{Workload, declared_peer};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::stage::{B, OWN_PORT, PORT, b_id, call, federate, federated, holds, refused};

const GREETING: &[u8] = b"the workload answers";

#[tokio::test]
async fn a_foreign_peer_enters_only_where_a_policy_names_it() -> Result<()> {
    let Some(stage) = federated().await? else { return Ok(()) };
    let (a, b) = (&stage.a, &stage.b);
    refused(b, a.v4(OWN_PORT)).await?;
    a.outcome("inbound", "policy_denied", 1.0).await?;
    drop(call(b, a, a.v4(PORT)).await?);
    // A sidecar whose file does not name the domain holds nothing of it, whatever the CA says.
    let bystander = stage.mesh.workload("bystander").await?;
    let to = bystander.v4(OWN_PORT);
    let id = bystander.spec.id();
    let mut b = stage.b;
    b.reload(|spec| {
        spec.tables.push_str(&declared_peer(to.ip(), &id, ""));
    })?;
    holds(&bystander, 0.0).await?;
    refused(&b, to).await?;
    bystander.outcome("inbound", "wrong_trust_domain", 1.0).await?;
    // The twin: its own domain enters there.
    drop(call(a, &bystander, to).await?);
    Ok(())
}

#[tokio::test]
async fn a_foreign_root_vouches_for_no_name_of_ours() -> Result<()> {
    let Some(stage) = federated().await? else { return Ok(()) };
    // Both CAs are robbed; whoever holds their keys dials `a` from a pod without a sidecar.
    let (ours, theirs) = (Forge::of(&stage.mesh.ca).await?, Forge::of(&stage.b_ca).await?);
    let thief = Thief { pod: stage.mesh.pod("thief")?, trusts: ours.bundle()?, to: &stage.a };
    let _workload = thief.listen().await?;
    let table = [
        ("their root, our name", &theirs, "spiffe://mesh.test/ns/test/sa/b", "untrusted_root"),
        ("their root, our CA's name", &theirs, "spiffe://mesh.test/myelin/ca", "untrusted_root"),
        ("our root, their name", &ours, "spiffe://b.test/ns/test/sa/b", "untrusted_root"),
        ("a third domain", &theirs, "spiffe://c.test/ns/test/sa/b", "wrong_trust_domain"),
        ("their CA", &theirs, "spiffe://b.test/myelin/ca", "policy_denied"),
        ("another of theirs", &theirs, "spiffe://b.test/ns/test/sa/c", "policy_denied"),
    ];
    for (what, forge, id, word) in table {
        let before = stage.a.metrics().await?.outcome("inbound", word);
        let answer = thief.speak(&forge.svid(id, thief.pod.addresses())?).await;
        ensure!(answer.is_err(), "{what}: was let in and heard {answer:?}");
        stage.a.outcome("inbound", word, before + 1.0).await.context(what)?;
    }
    // The twin: the name that the policy has, under the root of its own domain.
    let genuine = theirs.svid(&b_id(), thief.pod.addresses())?;
    ensure!(thief.speak(&genuine).await? == GREETING);
    Ok(())
}

/// Plain mTLS with certificates of any shape.
struct Thief<'a> {
    pod: Pod,
    trusts: Arc<TrustBundle>,
    to: &'a Workload,
}

impl Thief<'_> {
    /// The workload that nobody should reach: it greets.
    async fn listen(&self) -> Result<AbortOnDrop> {
        let listener = self.to.pod.tcp_listen(self.to.v4(PORT)).await?;
        Ok(AbortOnDrop(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Whoever is cut hears nothing.
                let _ = stream.write_all(GREETING).await;
                let _ = stream.shutdown().await;
            }
        })))
    }

    async fn speak(&self, own: &Credential) -> Result<Vec<u8>> {
        let key = CertifiedKey::new(own.chain.clone(), any_supported_type(&own.key)?);
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(self.trusts.clone())))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let to = self.to.v4(PORT);
        let tcp = self.pod.tcp_connect(to).await?;
        let talk = async {
            let name = ServerName::IpAddress(to.ip().into());
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
            stream.write_all(b"let me in").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            ensure!(!answer.is_empty(), "closed without a word");
            Ok(answer)
        };
        tokio::time::timeout(Duration::from_secs(15), talk).await.context("no end")?
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn an_operator_refreshes_lists_and_adds_a_domain_once() -> Result<()> {
    let Some(stage) = federated().await? else { return Ok(()) };
    // By itself the CA would ask again with the refresh hint.
    let said = stage.mesh.ca.operate(&["federation", "refresh", "--trust-domain", B]).await?;
    ensure!(said.contains("as before"), "{said}");
    let listed = stage.mesh.ca.operate(&["federation", "list"]).await?;
    ensure!(listed.contains("b.test") && listed.contains("https_spiffe"), "{listed}");
    let again = federate(&stage.mesh, &stage.mesh.ca, B, &stage.b_ca).await;
    ensure!(again.is_err(), "one domain twice");
    Ok(())
}
