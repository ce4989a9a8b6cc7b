//! T59 below a root that somebody else made: its certificate names no log, and peers insist on the one
//! that the CA keeps for it all the same.
//!
//! Never: a root that names a log; the suite of the proofs has those.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::log::{ISSUER_LOG_OID, LOG_OID, LogProof, issuer_log, named_log_extension};
use myelin_lab::Pod;
use myelin_sidecar::addr::Clock;
use myelin_sidecar::tls::Configs;
use myelin_sidecar::wire::Refuse;
use myelin_tests::ca::Ca;
use myelin_tests::forge::{now, pkcs8, stolen_intermediate, svid, valid};
use myelin_tests::genuine::Genuine;
use myelin_tests::knock::{Said, dial, open};
use myelin_tests::{Mesh, Options, Workload};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use crate::root::{DOMAIN, below_corporate_root, workload};

const STRANGER: &str = "spiffe://corp.test/ns/test/sa/stranger";
const PORT: u16 = 7_000;

struct Stage {
    bundle: Arc<TrustBundle>,
    server: Workload,
    stranger: Pod,
}

impl Stage {
    async fn set(mesh: &Mesh, ca: &Ca) -> Result<Self> {
        let server = workload(mesh, ca, "server").await?;
        let bundle =
            TrustBundle::from_pem(TrustDomain::parse(DOMAIN)?, 0, &ca.bundle_pem().await?)?;
        Ok(Self { bundle: Arc::new(bundle), server, stranger: mesh.pod("stranger")? })
    }

    fn to(&self) -> SocketAddr {
        self.server.v4(PORT)
    }

    async fn knock(&self, configs: &Configs, proof: &[u8]) -> Result<Said> {
        open(&mut dial(&self.stranger, self.to(), configs, proof).await?).await
    }

    async fn demand_refused(
        &self,
        name: &str,
        own: &Configs,
        proof: &[u8],
        word: &str,
    ) -> Result<()> {
        let before = self.server.metrics().await?.outcome("inbound", word);
        let said = self.knock(own, proof).await.with_context(|| name.to_owned())?;
        ensure!(said == Said::Refused(Refuse::NotLogged), "{name}: {said:?}");
        self.server.outcome("inbound", word, before + 1.0).await.context(name.to_owned())
    }

    /// As whoever holds a leaf for the stranger's own addresses below this issuer.
    fn leaf(&self, issuer: &Issuer<'_, KeyPair>, der: CertificateDer<'static>) -> Result<Configs> {
        let key = KeyPair::generate()?;
        let leaf = svid(STRANGER, self.stranger.addresses())?.signed_by(&key, issuer)?;
        let (chain, clock, alpns) = ([leaf.der().clone(), der], Clock::new(now), [b"h2".to_vec()]);
        Ok(Configs::build(&chain, &pkcs8(&key), &self.bundle, &alpns, &clock)?)
    }
}

/// What a thief of the corporate root's key makes: an intermediate like the CA's, in no log.
fn secret_intermediate(
    root: &Path,
    like: &CertificateDer<'_>,
) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&fs::read_to_string(root.with_extension("key"))?)?;
    let root = Issuer::from_ca_cert_pem(&fs::read_to_string(root)?, key)?;
    let named = named_log_extension(&issuer_log(like)?.context("it names no log of its issuer")?);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Myelin issuing CA of corp.test");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names =
        vec![SanType::URI(format!("spiffe://{DOMAIN}").as_str().try_into()?)];
    params.use_authority_key_identifier_extension = true;
    params.custom_extensions = [LOG_OID, ISSUER_LOG_OID]
        .map(|oid| CustomExtension::from_oid_content(&oid, named.clone()))
        .to_vec();
    valid(&mut params, now() - 60, now() + 86_400);
    Ok(CertifiedIssuer::signed_by(params, KeyPair::generate()?, &root)?)
}

#[tokio::test]
async fn peers_below_a_corporate_root_insist_on_the_log_that_its_ca_keeps() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let (ca, root) = below_corporate_root(&mesh).await?;
    let stage = Stage::set(&mesh, &ca).await?;
    let pem = ca.bundle_pem().await?;
    ensure!(pem.starts_with("myelin-root-log: corp.test/myelin/root-log/"), "{pem}");

    // What the CA issued is accepted with its proof, for which it is verified.
    let listener = stage.server.pod.tcp_listen(stage.to()).await?;
    let heard = tokio::spawn(async move { listener.accept().await });
    let genuine = Genuine::enrol_at(&ca, &stage.stranger, STRANGER).await?.snapshot()?;
    let proof = genuine.log_proof.clone();
    ensure!(stage.knock(&genuine.tls, &proof).await? == Said::Accepted);
    heard.await??;
    let judged = [("direction", "inbound"), ("outcome", "verified")];
    ensure!(stage.server.metrics().await?.sum("myelin_log_proofs_total", &judged) == 1.0);

    // T59: the intermediate's key is stolen.
    let (intermediate, key) = stolen_intermediate(&ca).await?;
    let thief = Issuer::from_ca_cert_der(&intermediate, key)?;
    let secret = stage.leaf(&thief, intermediate.clone())?;
    stage.demand_refused("no proof", &secret, &[], "not_logged").await?;
    stage.demand_refused("another's proof", &secret, &proof, "log_proof_invalid").await?;

    // T59: the corporate root has signed an intermediate that is in no log.
    let made = secret_intermediate(&root, &intermediate)?;
    let hidden = stage.leaf(&made, made.der().clone())?;
    stage.demand_refused("no proof", &hidden, &[], "not_logged").await?;
    let place = LogProof::decode(&proof)?;
    let copied = LogProof { leaf: place.issuer.clone(), issuer: place.issuer }.encode()?;
    stage.demand_refused("the place of ours", &hidden, &copied, "log_proof_invalid").await
}
