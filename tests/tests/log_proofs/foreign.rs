//! Peers of a foreign trust domain whose root names no log: they enter only where the operators of
//! the CA and of the sidecar have both accepted that, and for as long as they do.
//!
//! Never: a foreign domain that has a log; the federation suite has those.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use anyhow::{Result, ensure};
use myelin_identity::bundle::{ForeignBundle, ForeignBundles, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_tests::Spec;
use myelin_tests::forge::{Credential, now, pkcs8, svid, valid};
use myelin_tests::programs::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{KeyIdMethod, KeyUsagePurpose};

use crate::stage::{PORT, SOON, Said, Stage, echoes, open};

const B: &str = "b.test";
const PARTNER: &str = "spiffe://b.test/ns/test/sa/partner";

/// A CA that keeps no log.
struct Partner {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Partner {
    fn new() -> Result<Self> {
        let root = CertifiedIssuer::self_signed(issuer("root")?, KeyPair::generate()?)?;
        let intermediate =
            CertifiedIssuer::signed_by(issuer("intermediate")?, KeyPair::generate()?, &root)?;
        Ok(Self { root, intermediate })
    }

    fn bundles(&self, unlogged: bool) -> Result<ForeignBundles> {
        let roots = vec![self.root.der().clone()];
        let bundle = Arc::new(TrustBundle::new(TrustDomain::parse(B)?, 1, roots)?);
        Ok(ForeignBundles::new(1, vec![ForeignBundle { bundle, unlogged }])?)
    }

    /// An SVID for the stranger's addresses.
    fn svid(&self, stage: &Stage) -> Result<Credential> {
        let key = KeyPair::generate()?;
        let params = svid(PARTNER, stage.stranger.addresses())?;
        let leaf = params.signed_by(&key, &self.intermediate)?.der().clone();
        Ok(Credential { chain: vec![leaf, self.intermediate.der().clone()], key: pkcs8(&key) })
    }
}

fn issuer(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::Sha256;
    valid(&mut params, now() - 3_600, now() + 86_400);
    Ok(params)
}

/// A server whose file names the partner, with or without a word about its log.
fn server(unlogged: bool) -> Spec {
    let named = vec![B.to_owned()];
    let federates_unlogged = if unlogged { named.clone() } else { Vec::new() };
    let allow =
        format!("[[inbound.allow]]\nname = \"partner\"\nports = [{PORT}]\nids = [\"{PARTNER}\"]\n");
    Spec { federates_with: named, federates_unlogged, ..Spec::new("server") }.tables(&allow)
}

async fn holds_the_bundle(stage: &Stage) -> Result<()> {
    eventually("the foreign bundle is held", SOON, async || {
        Ok(stage.server.metrics().await?.sum("myelin_foreign_bundles", &[]) > 0.5)
    })
    .await
}

#[tokio::test]
async fn without_the_cas_word_a_foreign_peer_without_a_log_is_refused() -> Result<()> {
    let partner = Partner::new()?;
    let said = partner.bundles(false)?;
    let Some(stage) = Stage::set_with(server(true), Some(said)).await? else { return Ok(()) };
    holds_the_bundle(&stage).await?;
    let own = partner.svid(&stage)?;
    stage.demand_refused("our file alone says so", &own, &[], "foreign_unlogged").await
}

#[tokio::test]
async fn a_foreign_peer_without_a_log_enters_by_both_words_and_is_cut_when_one_is_taken_back()
-> Result<()> {
    let partner = Partner::new()?;
    let said = partner.bundles(true)?;
    let Some(mut stage) = Stage::set_with(server(false), Some(said)).await? else {
        return Ok(());
    };
    holds_the_bundle(&stage).await?;
    let own = partner.svid(&stage)?;
    stage.demand_refused("the CA alone says so", &own, &[], "foreign_unlogged").await?;
    stage.server.reload(|spec| spec.federates_unlogged = vec![B.to_owned()])?;
    eventually("it is let in", SOON, async || Ok(stage.knock(&own, &[]).await? == Said::Accepted))
        .await?;
    let mut running = stage.connect(&own, &[]).await?;
    ensure!(open(&mut running).await? == Said::Accepted && echoes(&mut running).await);
    stage.server.reload(|spec| spec.federates_unlogged.clear())?;
    stage.server.outcome("inbound", "withdrawn", 1.0).await?;
    ensure!(!echoes(&mut running).await, "it runs on");
    stage.demand_refused("the word is taken back", &own, &[], "foreign_unlogged").await
}
